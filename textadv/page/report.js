"use strict";
(() => {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const holder = document.getElementById("records");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const PAGE = 20;
  const STATUS = {
    flipped: "✗ flipped",
    survived: "✓ survived",
    wrong_before: "○ wrong before",
    unresolved: "? unresolved",
  };
  const NAMES = {
    0x00a0: "no-break space", 0x00ad: "soft hyphen", 0x061c: "Arabic letter mark",
    0x200b: "zero-width space", 0x200c: "zero-width non-joiner", 0x200d: "zero-width joiner",
    0x200e: "left-to-right mark", 0x200f: "right-to-left mark", 0x202a: "left-to-right embedding",
    0x202b: "right-to-left embedding", 0x202c: "pop directional formatting",
    0x202d: "left-to-right override", 0x202e: "right-to-left override", 0x2060: "word joiner",
    0x2066: "left-to-right isolate", 0x2067: "right-to-left isolate",
    0x2068: "first strong isolate", 0x2069: "pop directional isolate",
    0xfeff: "zero-width no-break space", 0x0008: "backspace", 0x007f: "delete",
    0x000a: "line feed", 0x000d: "carriage return", 0x0009: "tab",
  };
  // Not seen, or changes what is seen: controls, formats, odd spaces, fillers, selectors.
  const HIDDEN =
    /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u00a0\u034f\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200a\u202f\u205f\u3000\u3164\ufe00-\ufe0f\uffa0]/u;
  const RTL =
    /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Samaritan}\p{Script=Mandaic}\p{Script=Adlam}]/u;

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const code = (character) =>
    "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

  // Put text into an element with everything that would hide or reorder it made visible.
  const put = (element, text, foreign) => {
    let plain = "", turned = "";
    const flush = () => {
      if (plain) element.append(plain);
      if (turned) {
        const box = make("bdi", "rtl", turned);
        box.title = "right-to-left text, shown in the order it is stored";
        element.append(box);
      }
      plain = turned = "";
    };
    for (const character of text) {
      if (HIDDEN.test(character)) {
        flush();
        const point = code(character);
        const name = NAMES[character.codePointAt(0)];
        const mark = make("span", "mark", point);
        mark.title = name ? point + " " + name : point;
        element.append(mark);
      } else if (RTL.test(character)) {
        if (plain) flush();
        turned += character;
      } else if (foreign && character > "\u007e") {
        flush();
        const mark = make("span", "foreign", character);
        mark.title = code(character);
        element.append(mark);
      } else {
        if (turned) flush();
        plain += character;
      }
    }
    flush();
    return element;
  };

  const label = (index) => (index === null ? "none" : data.labels[index] ?? String(index));

  const card = (record) => {
    const [at, attack, status, prediction, queries, words, reason, changes] = record;
    const [id, gold, clean, columns] = data.examples[at];
    const box = make("article", "example " + status);
    const head = make("header");
    head.append(put(make("span", "id"), id));
    head.append(make("span", "badge " + status, STATUS[status]));
    head.append(put(make("span", "attack"), data.attacks[attack]));
    const labels = make("span", "labels");
    put(labels, "gold " + label(gold));
    if (clean !== gold) put(labels, ", predicted " + label(clean));
    if (prediction !== null) put(labels, " → " + label(prediction));
    head.append(labels);
    const facts = [queries + (queries === 1 ? " query" : " queries")];
    if (changes.length) facts.push(words + (words === 1 ? " word changed" : " words changed"));
    if (reason) facts.push(reason);
    head.append(put(make("span", "facts"), facts.join(" · ")));
    box.append(head);
    let line = make("p", "text");
    line.dir = "ltr";
    box.append(line);
    const next = () => {
      line = make("p", "text");
      line.dir = "ltr";
      box.append(line);
    };
    if (!changes.length) {
      columns.forEach((text, column) => {
        if (column) next();
        put(line, text, false);
      });
    }
    for (let i = 0; i < changes.length; i += 2) {
      const text = changes[i + 1];
      if (changes[i] === 3) next();
      else if (changes[i] === 0) put(line, text, false);
      else line.append(put(make(changes[i] === 1 ? "del" : "ins"), text, changes[i] === 2));
    }
    return box;
  };

  const find = (name) => document.getElementById(name);
  const search = find("search"), attack = find("by-attack"), status = find("by-status");
  const gold = find("by-label"), list = find("examples-list"), count = find("count");
  const previous = find("previous"), next = find("next"), page = find("page");
  const option = (select, value, text) => {
    const one = make("option", "", text);
    one.value = value;
    select.append(one);
  };
  data.attacks.forEach((name, index) => option(attack, index, name));
  data.labels.forEach((name, index) => option(gold, index, name));

  const folded = [];
  const haystack = (index) => {
    if (folded[index] === undefined) {
      const record = data.records[index];
      const example = data.examples[record[0]];
      const changed = record[7].filter((part, place) => place % 2 && record[7][place - 1] !== 1);
      folded[index] =
        (example[0] + "\n" + example[3].join("\n") + "\n" + changed.join("")).toLowerCase();
    }
    return folded[index];
  };

  let chosen = [], at = 0;
  const show = () => {
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    at = Math.min(Math.max(at, 0), pages - 1);
    const rows = chosen.slice(at * PAGE, (at + 1) * PAGE);
    list.replaceChildren(...rows.map((index) => card(data.records[index])));
    if (!rows.length) list.append(make("p", "none", "No example matches."));
    count.textContent = chosen.length.toLocaleString("en") +
      (chosen.length === 1 ? " record" : " records");
    page.textContent = "page " + (at + 1) + " of " + pages.toLocaleString("en");
    previous.disabled = at === 0;
    next.disabled = at === pages - 1;
  };
  const filter = () => {
    const wanted = search.value.toLowerCase().trim();
    chosen = [];
    data.records.forEach((record, index) => {
      if (attack.value !== "" && record[1] !== Number(attack.value)) return;
      if (status.value !== "" && record[2] !== status.value) return;
      if (gold.value !== "" && data.examples[record[0]][1] !== Number(gold.value)) return;
      if (wanted && !haystack(index).includes(wanted)) return;
      chosen.push(index);
    });
    at = 0;
    show();
  };
  if (!data.records.some((record) => record[2] === "flipped")) status.value = "";
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(filter, 120);
  });
  for (const select of [attack, status, gold]) select.addEventListener("change", filter);
  previous.addEventListener("click", () => { at -= 1; show(); });
  next.addEventListener("click", () => { at += 1; show(); });
  filter();
  root.dataset.ready = "yes";
})();
