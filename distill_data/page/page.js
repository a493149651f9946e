"use strict";
// The viewer of example traces. Whatever a teacher or a prompt wrote reaches the page as text alone: textContent and
// attributes, never markup.

const data = JSON.parse(document.getElementById("rows").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// A token's shade: how unlikely it was. The first limit that its probability reaches names the shade.
const SHADES = [[0.9, 0], [0.5, 1], [0.2, 2], [0.05, 3], [0.01, 4], [0, 5]];
const VERDICTS = {
  passed: (row) => row.passed === true,
  failed: (row) => row.passed === false,
  "not judged": (row) => row.passed === null,
};

let matching = [];
let position = 0;
let thinkingOpen = true;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function shareBar(share) {
  const bar = document.createElementNS(SVG, "svg");
  for (const [key, value] of [["class", "share"], ["width", "100%"], ["height", "6"], ["aria-hidden", "true"]]) {
    bar.setAttribute(key, value);
  }
  for (const [kind, width] of [["rail", 1], ["fill", share]]) {
    const part = document.createElementNS(SVG, "rect");
    part.setAttribute("class", kind);
    part.setAttribute("width", `${100 * width}%`);
    part.setAttribute("height", "6");
    bar.append(part);
  }
  return bar;
}

const percent = (p) => (p >= 0.0995 ? `${(100 * p).toFixed(1)}%` : p >= 0.0001 ? `${(100 * p).toPrecision(2)}%`
  : p > 0 ? p.toExponential(1) : "0%");
const count = (number) => number.toLocaleString("en-US");

// Filters

function fill(select, all, groups) {
  select.append(element("option", { value: "" }, `${all} (${count(data.rows.length)})`));
  for (const [name, size] of groups) select.append(element("option", { value: name }, `${name} (${count(size)})`));
}

function tally(key) {
  const sizes = new Map();
  for (const row of data.rows) sizes.set(key(row), (sizes.get(key(row)) || 0) + 1);
  return sizes;
}

const reasonOf = (row) => row.reason || "kept";
const verdictOf = (row) => Object.keys(VERDICTS).find((name) => VERDICTS[name](row));

function applyFilters() {
  const [reason, source, verdict] = ["by-reason", "by-source", "by-verdict"].map((id) => byId(id).value);
  matching = data.rows.filter((row) => (!reason || reasonOf(row) === reason) && (!source || row.source === source)
    && (!verdict || verdictOf(row) === verdict));
  show(0);
}

// One row

function show(place) {
  position = Math.max(0, Math.min(place, matching.length - 1));
  const row = matching[position];
  byId("position").textContent = row ? `${count(position + 1)} of ${count(matching.length)}` : "none";
  byId("previous").setAttribute("aria-disabled", String(!row || position === 0));
  byId("next").setAttribute("aria-disabled", String(!row || position === matching.length - 1));
  const article = byId("trace");
  article.replaceChildren(...(row ? traceParts(row) : [element("p", { class: "note" }, "No row is like this.")]));
}

function traceParts(row) {
  return [
    heading(row),
    facts(row),
    row.detail ? part("Why it was dropped", textBlock(row.detail)) : null,
    conversation(row),
    row.thinking ? thinking(row) : null,
    row.answer ? part("Answer", textBlock(row.answer)) : null,
    row.reference ? part("Reference", textBlock(row.reference)) : null,
    row.tokens ? tokenPart(row.tokens) : null,
    row.metadata && row.metadata.text !== "{}" ? folded("Metadata", row.metadata) : null,
  ].filter((piece) => piece !== null);
}

function heading(row) {
  const verdict = verdictOf(row);
  return element("header", {},
    element("h3", {}, row.trace_id || row.prompt_id || "prompt"),
    element("p", { class: "badges" },
      element("span", { class: row.reason ? "badge dropped" : "badge kept" }, row.reason || `kept, ${row.split}`),
      element("span", { class: `badge ${verdict.replace(" ", "-")}` }, verdict)));
}

function facts(row) {
  const shown = [
    ["source", row.source],
    ["sample", row.sample_index],
    ["score", row.score],
    ["finish reason", row.finish_reason],
    ["prompt tokens", row.prompt_tokens],
    ["completion tokens", row.completion_tokens],
    ["mean log-probability", row.mean_logprob],
  ];
  return element("dl", { class: "facts inline" },
    ...shown.filter(([, value]) => value !== null).map(([name, value]) => element("div", {}, element("dt", {}, name),
      element("dd", {}, typeof value === "number" ? value.toLocaleString("en-US", { maximumSignificantDigits: 6 })
        : value))));
}

function part(name, ...content) {
  return element("section", { class: "part" }, element("h4", {}, name), ...content);
}

function textBlock(cut) {
  return element("div", { class: "text", dir: "auto" }, cut.text,
    cut.left ? element("span", { class: "cut" }, ` … ${count(cut.left)} more characters are in the corpus`) : null);
}

function conversation(row) {
  if (!row.messages.length) return null;
  const turns = row.messages.map(([role, text]) => element("div", { class: "turn" }, element("h5", {}, role),
    text ? textBlock(text) : element("p", { class: "note" }, "empty")));
  const left = row.messages_left ? element("p", { class: "cut" }, `${count(row.messages_left)} more messages`) : null;
  return part("Prompt", ...turns, left);
}

function folded(name, cut) {
  return element("details", { class: "part" }, element("summary", {}, name), textBlock(cut));
}

function thinking(row) {
  const details = folded("Thinking", row.thinking);
  details.open = thinkingOpen;
  details.addEventListener("toggle", () => { thinkingOpen = details.open; });
  return details;
}

// Tokens

const tokenText = (id) => data.texts[id];
const visible = (text) => (text === "" ? "∅" : text.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥\t"));
const quoted = (text) => (text === "" ? "∅" : text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ | $/g, "␣"));

function tokenPart(tokens) {
  const panel = element("aside", { class: "alternatives", "aria-live": "polite", "aria-label": "Alternatives" },
    element("p", { class: "note" }, "Point at a token, tap it, or go there with the arrow keys."));
  const list = element("div", { class: "tokens", role: "listbox", "aria-label": "Tokens of the completion" },
    ...tokens.ids.map((id, place) => token(tokens, id, place)));
  watchTokens(list, (place) => panel.replaceChildren(...alternatives(tokens, place)));
  const left = tokens.total - tokens.ids.length;
  return part("Token by token", legend(), element("div", { class: "token-view" }, element("div", {}, list,
    left ? element("p", { class: "cut" }, `… ${count(left)} more tokens are in the corpus`) : null), panel));
}

function token(tokens, id, place) {
  const shade = SHADES.find(([limit]) => tokens.p[place] >= limit)[1];
  return element("span", { class: `token shade-${shade}`, role: "option", "aria-selected": "false",
    tabindex: place ? "-1" : "0", "data-place": place }, visible(tokenText(id)));
}

function legend() {
  const names = ["90% or more", "50%", "20%", "5%", "1%", "less"];
  return element("p", { class: "legend" }, "probability of the sampled token ",
    ...names.map((name, shade) => element("span", { class: `token shade-${shade}` }, name)));
}

function watchTokens(list, choose) {
  let current = null;
  const select = (chosen) => {
    if (!chosen || chosen === current) return;
    if (current) {
      current.setAttribute("aria-selected", "false");
      current.tabIndex = -1;
    }
    current = chosen;
    current.setAttribute("aria-selected", "true");
    current.tabIndex = 0;
    choose(Number(current.dataset.place));
  };
  for (const kind of ["pointerover", "focusin", "click"]) {
    list.addEventListener(kind, (event) => select(event.target.closest("[data-place]")));
  }
  list.addEventListener("keydown", (event) => {
    const from = event.target.closest("[data-place]");
    const to = from && { ArrowRight: from.nextElementSibling, ArrowLeft: from.previousElementSibling,
      Home: list.firstElementChild, End: list.lastElementChild }[event.key];
    if (to) {
      event.preventDefault();
      to.focus();
    }
  });
}

function alternatives(tokens, place) {
  const sampled = tokens.ids[place];
  const pairs = tokens.alternatives[place];
  const rows = [];
  for (let at = 0; at < pairs.length; at += 2) rows.push([pairs[at], pairs[at + 1]]);
  const listed = rows.some(([id]) => id === sampled);
  const [more, mass] = tokens.others[place];
  const body = element("tbody", {},
    ...rows.map(([id, p]) => alternative(id, p, id === sampled)),
    more ? remainder(`${count(more)} more kept tokens`, mass) : null,
    remainder("tail: all other tokens", tokens.tail[place]),
    listed ? null : alternative(sampled, tokens.p[place], true, true));
  return [
    element("p", { class: "chosen" }, element("code", {}, quoted(tokenText(sampled))),
      ` token ${count(place + 1)} of ${count(tokens.total)}, sampled at ${percent(tokens.p[place])}`),
    element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "the teacher’s tokens"),
      element("th", { scope: "col", class: "num" }, "probability"))), body),
  ];
}

function alternative(id, p, sampled, unlisted = false) {
  const name = element("th", { scope: "row" }, element("code", {}, quoted(tokenText(id))));
  if (sampled) name.append(" ", element("span", { class: "badge kept" }, unlisted ? "sampled, counted above" : "sampled"));
  return element("tr", { class: sampled ? "sampled" : "", "data-id": id, "data-p": p }, name,
    element("td", { class: "num" }, percent(p), shareBar(p)));
}

function remainder(name, p) {
  return element("tr", { class: "rest", "data-p": p }, element("th", { scope: "row" }, name),
    element("td", { class: "num" }, percent(p), shareBar(p)));
}

// Start

function pageByKey(event) {
  if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("select, .tokens, [contenteditable]")) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  show(position + step);
}

fill(byId("by-reason"), "all", tally(reasonOf));
fill(byId("by-source"), "all", tally((row) => row.source || ""));
fill(byId("by-verdict"), "any", tally(verdictOf));
byId("filters").addEventListener("change", applyFilters);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("previous").addEventListener("click", () => show(position - 1));
byId("next").addEventListener("click", () => show(position + 1));
byId("viewer").addEventListener("keydown", pageByKey);
for (const link of document.querySelectorAll("a[data-reason]")) {
  link.addEventListener("click", () => {
    byId("filters").reset();
    byId("by-reason").value = link.dataset.reason;
    applyFilters();
  });
}
byId("viewer").hidden = false;
applyFilters();
