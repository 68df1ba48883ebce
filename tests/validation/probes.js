// What the tests ask of a report in a browser.
const shown = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
const start = (e) => e.outerHTML.slice(0, 150);

// Text outside the window, or cut by an ancestor that hides what is too wide; what scrolls may be wider.
const cut = (exempt = ".scroll, .buttons") => shown("body *").filter((e) => {
  if (!hasText(e) || e.closest(".away, .skip, script, style, caption") || (exempt && e.closest(exempt))) return false;
  if (e.closest("thead") && getComputedStyle(e.closest("thead")).position === "absolute") return false;
  const box = e.getBoundingClientRect();
  if (box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5) return true;
  for (let p = e; p; p = p.parentElement) {
    if (getComputedStyle(p).overflowX === "hidden" && p.scrollWidth > p.clientWidth + 1) return true;
  }
  return false;
}).map(start);

// Text whose contrast with what lies behind it is below 4.5, as WCAG 2 defines it.
const faint = () => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
  };
  const known = {};
  const colour = (text) => (known[text] ??= rgba(text));
  const over = (top, below) => [0, 1, 2].map((k) => top[3] * top[k] + (1 - top[3]) * below[k]).concat(1);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  return shown("body *").filter((e) => hasText(e) && !e.closest(".away, .skip, script, style")).map((e) => {
    const layers = [];
    for (let p = e; p; p = p.parentElement) layers.push(colour(getComputedStyle(p).backgroundColor));
    const ground = layers.reverse().reduce((below, top) => over(top, below), [1, 1, 1, 1]);
    const style = getComputedStyle(e);
    const ink = over(colour(e.closest("svg") ? style.fill : style.color), ground);
    const [low, high] = [luminance(ink), luminance(ground)].sort((x, y) => x - y);
    return [(high + 0.05) / (low + 0.05), start(e)];
  }).filter(([ratio]) => ratio < 4.5);
};

// Every filter pressed in turn, with what it says and what is to be seen.
const filters = () => [...document.querySelectorAll(".filtered")].flatMap((section) =>
  [...section.querySelectorAll("[data-show]")].map((button) => {
    button.click();
    const name = button.dataset.show;
    const inside = (selector) => shown(`#${section.id} ${selector}`);
    const entries = inside("[data-verdict]");
    const groups = inside("details.group");
    return {
      section: section.id,
      verdict: name,
      said: Number(button.querySelector("b").textContent),
      shown: entries.length,
      wrong: entries.filter((e) => name !== "all" && e.dataset.verdict !== name).length,
      status: section.querySelector("output").textContent,
      pressed: [...section.querySelectorAll("[aria-pressed=true]")].map((b) => b.dataset.show),
      empty: groups.filter((g) => !g.querySelector("[data-verdict]:not([hidden])")).length,
      by_group: inside(".shown").reduce((sum, e) => sum + parseInt(e.textContent), 0),
      unfolded: groups.every((g) => g.open),
    };
  }));

const openAll = () => document.querySelectorAll("details").forEach((box) => { box.open = true; });
