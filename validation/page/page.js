// Filters by verdict, folding, and links that find what is folded or filtered. Without it the page is whole and folds.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

for (const section of all(".filtered")) {
  const bar = section.querySelector(".filter");
  const shows = all("[data-show]", bar);
  const groups = all("details.group", section);
  const entries = all("[data-verdict]", section);
  const status = bar.querySelector("output");
  const fold = bar.querySelector("[data-fold]");

  const name = () => {
    const open = groups.every((group) => group.hidden || group.open);
    fold.textContent = open ? "fold all" : "open all";
    fold.dataset.fold = open ? "open" : "";
  };
  section.show = (verdict, unfold = true) => {
    shows.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.show === verdict)));
    let shown = 0;
    for (const group of groups) {
      let here = 0;
      for (const entry of all("[data-verdict]", group)) {
        entry.hidden = verdict !== "all" && entry.dataset.verdict !== verdict;
        here += !entry.hidden;
      }
      group.hidden = here === 0;
      group.querySelector(".shown").textContent = verdict === "all" ? "" : `${here} shown`;
      if (unfold && verdict !== "all" && here) group.open = true;
      shown += here;
    }
    status.textContent = `${shown} of ${entries.length} ${bar.dataset.noun}` + (verdict === "all" ? "" : " shown");
    name();
  };
  shows.forEach((button) => button.addEventListener("click", () => {
    section.show(button.dataset.show);
    if (section.getBoundingClientRect().top < 0) bar.scrollIntoView();
  }));
  fold.addEventListener("click", () => {
    const open = fold.dataset.fold !== "open";
    groups.forEach((group) => { if (!group.hidden) group.open = open; });
    name();
  });
  groups.forEach((group) => group.addEventListener("toggle", name));
  bar.hidden = false;
  name();
}

// A link finds its target, whatever is folded or filtered.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const section = target.closest(".filtered");
  if (section && (target.hidden || target.closest("[hidden]"))) section.show("all", false);
  for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && link.hash === location.hash) reveal();
});

// What is folded is printed; afterwards it is folded again. A reload keeps what was open.
const boxes = all("details");
const state = () => boxes.map((box) => (box.open ? 1 : 0)).join("");
const restore = (saved) => boxes.forEach((box, k) => { box.open = saved[k] === "1"; });
let before = "";
addEventListener("beforeprint", () => { before = state(); boxes.forEach((box) => { box.open = true; }); });
addEventListener("afterprint", () => restore(before));
try {
  const saved = sessionStorage.getItem(document.title);
  if (saved && saved.length === boxes.length) restore(saved);
  addEventListener("pagehide", () => sessionStorage.setItem(document.title, state()));
} catch { /* a browser that keeps nothing for local files */ }
reveal();
