// Shows the claims of one verdict, or all of them; a family without a shown claim hides its heading too.
const buttons = [...document.querySelectorAll("nav.filter button")];
const claims = [...document.querySelectorAll("article[data-verdict]")];

function show(verdict) {
  buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict)));
  claims.forEach((claim) => { claim.hidden = verdict !== "all" && claim.dataset.verdict !== verdict; });
  document.querySelectorAll("section.family").forEach((family) => {
    family.hidden = !family.querySelector("article:not([hidden])");
  });
}

buttons.forEach((button) => button.addEventListener("click", () => show(button.dataset.verdict)));
// A link to a claim from one of the tables must find it, whatever is filtered.
window.addEventListener("hashchange", () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.closest("[hidden]")) { show("all"); target.scrollIntoView(); }
});
