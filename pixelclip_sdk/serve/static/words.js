// The words: a list of classes that a person edits in place. It is also the legend.

/** Returns [{name, synonyms}] of text: "cat, dog" are two classes, "sofa: couch, settee" is one with synonyms. */
export function parseWords(text) {
  const found = [];
  for (const entry of text.split(/[\n;]+/)) {
    const colon = entry.indexOf(":");
    if (colon < 0) {
      for (const name of entry.split(",").map(tidy)) if (name) found.push({ name, synonyms: [] });
      continue;
    }
    const [names, rest] = [entry.slice(0, colon).split(",").map(tidy).filter(Boolean), entry.slice(colon + 1)];
    const last = names.pop();
    for (const name of names) found.push({ name, synonyms: [] });
    if (last) {
      const synonyms = [...new Set(rest.split(",").map(tidy))].filter((word) => word && word !== last);
      found.push({ name: last, synonyms });
    }
  }
  return found;
}

export function writeWord({ name, synonyms }) {
  return synonyms.length ? `${name}: ${synonyms.join(", ")}` : name;
}

const tidy = (text) => text.normalize("NFC").trim().replace(/\s+/g, " ");
const folded = (name) => name.normalize("NFKC").toLowerCase();

export class Words {
  /** `changed()` is called after the words changed, `shown()` after classes were switched on or off or one is
      to stand out. */
  constructor(list, { changed, shown, refused }) {
    Object.assign(this, { list, changed, shown, refused });
    this.items = []; // {name, synonyms, on, colour: index into the palette, row: its elements}
    this.palette = []; // [r, g, b]
    this.standsOut = null; // The name that the pointer is on.
  }

  get texts() {
    return this.items.map(writeWord);
  }

  /** The words as JSON. An object of JavaScript would sort names that are numbers to the front. */
  get json() {
    if (!this.items.some((item) => item.synonyms.length)) return JSON.stringify(this.items.map((i) => i.name));
    const pairs = this.items.map((i) => `${JSON.stringify(i.name)}:${JSON.stringify([i.name, ...i.synonyms])}`);
    return `{${pairs.join(",")}}`;
  }

  find(name) {
    return this.items.find((item) => item.name === name);
  }

  colour(item) {
    return this.palette[item.colour] ?? [128, 128, 128];
  }

  /** Replaces all words, without calling `changed`. */
  set(parsed, off = []) {
    this.items = [];
    for (const word of parsed) if (!this.repeated(word.name)) this.items.push(this.made(word));
    for (const item of this.items) item.on = !off.includes(item.name);
    this.draw();
  }

  /** Adds words; returns whether there was a new one. */
  add(parsed) {
    const fresh = [];
    for (const word of parsed) {
      if (this.repeated(word.name)) continue;
      this.items.push(this.made(word));
      fresh.push(word.name);
    }
    if (!fresh.length && parsed.length) this.refused(`“${parsed[0].name}” is there already.`);
    if (!fresh.length) return false;
    this.draw();
    this.changed();
    return true;
  }

  remove(item) {
    const at = this.items.indexOf(item);
    if (this.items.length === 1) {
      this.refused("At least one word is needed. Add another one first.");
      return;
    }
    this.items.splice(at, 1);
    if (this.standsOut === item.name) this.standsOut = null;
    this.draw();
    const next = this.items[Math.min(at, this.items.length - 1)];
    next.row.remove.focus();
    this.changed();
  }

  /** Replaces one word by what a person typed instead. */
  edit(item, text) {
    const parsed = parseWords(text);
    if (!parsed.length) {
      this.remove(item);
      return;
    }
    if (text.trim() === writeWord(item)) return;
    const repeated = parsed.find((word) => this.repeated(word.name, item));
    if (repeated) {
      this.refused(`“${repeated.name}” is there already.`);
      return;
    }
    const at = this.items.indexOf(item);
    this.items.splice(at, 1);
    const made = parsed.map((word) => this.made(word));
    made[0].colour = item.colour;
    made[0].on = item.on;
    this.items.splice(at, 0, ...made);
    this.draw();
    made[0].row.name.focus();
    this.changed();
  }

  /** Remembers these words: the server took them. */
  keep() {
    this.kept = this.items.map(({ name, synonyms, on, colour }) => ({ name, synonyms, on, colour }));
  }

  /** Goes back to the words that were kept; returns the text of the others, null if there are none. */
  restore() {
    const known = new Set(this.kept?.map(writeWord));
    const refused = this.texts.filter((text) => !known.has(text));
    if (!this.kept || !refused.length) return null;
    this.items = this.kept.map((item) => ({ ...item }));
    this.draw();
    return refused.join("; ");
  }

  repeated(name, except) {
    return this.items.some((item) => item !== except && folded(item.name) === folded(name));
  }

  /** A word keeps its colour when others come and go. */
  made({ name, synonyms }) {
    const taken = new Set(this.items.map((item) => item.colour));
    let colour = 0;
    while (taken.has(colour)) colour++;
    return { name, synonyms, on: true, colour };
  }

  draw() {
    this.list.replaceChildren(...this.items.map((item) => this.rowOf(item)));
    this.paint();
  }

  /** Applies the colours, which the server says. */
  paint(palette = this.palette) {
    if (palette.length > this.palette.length) this.palette = palette;
    for (const item of this.items) {
      const [r, g, b] = this.colour(item);
      item.row.li.style.setProperty("--colour", `rgb(${r} ${g} ${b})`);
      item.row.li.style.setProperty("--tick", 0.3 * r + 0.59 * g + 0.11 * b > 130 ? "#000" : "#fff");
    }
  }

  /** Shows shares, name → 0–1; null for none. */
  share(shares) {
    for (const { name, row } of this.items) {
      const share = shares ? shares[name] : undefined;
      row.share.textContent = share === undefined ? "" : percent(share);
      row.li.style.setProperty("--share", share ?? 0);
      row.li.classList.toggle("absent", !(share > 0));
    }
  }

  rowOf(item) {
    const row = (item.row = {
      li: element("li"),
      show: element("button", "swatch"),
      name: element("button", "name"),
      share: element("span", "share"),
      remove: element("button", "remove"),
    });
    row.show.setAttribute("aria-pressed", item.on);
    row.show.setAttribute("aria-label", `Draw ${item.name}`);
    row.show.title = "Draw this class or not";
    row.show.onclick = () => {
      item.on = !item.on;
      row.show.setAttribute("aria-pressed", item.on);
      this.shown();
    };
    const title = element("b");
    title.textContent = item.name;
    row.name.append(title);
    if (item.synonyms.length) {
      const others = element("small");
      others.textContent = item.synonyms.join(", ");
      row.name.append(others);
    }
    row.name.title = "Edit this word";
    row.name.setAttribute("aria-label", `${writeWord(item)}, edit`);
    row.name.onclick = () => this.startEdit(item);
    row.remove.textContent = "×";
    row.remove.setAttribute("aria-label", `Remove ${item.name}`);
    row.remove.onclick = () => this.remove(item);
    row.li.onpointerenter = (event) => event.pointerType === "mouse" && this.stand(item.name);
    row.li.onpointerleave = () => this.stand(null);
    row.li.append(row.show, row.name, row.share, row.remove);
    return row.li;
  }

  stand(name) {
    if (this.standsOut === name) return;
    this.standsOut = name;
    this.shown();
  }

  startEdit(item) {
    const input = element("input", "name");
    input.value = writeWord(item);
    input.setAttribute("aria-label", `New text for ${item.name}`);
    input.autocomplete = "off";
    input.spellcheck = false;
    let done = false;
    const finish = (keep) => {
      if (done) return;
      done = true;
      const hadFocus = document.activeElement === input;
      input.replaceWith(item.row.name);
      if (hadFocus) item.row.name.focus();
      if (keep) this.edit(item, input.value);
    };
    input.onkeydown = (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") finish(true);
      else if (event.key === "Escape") finish(false);
      else return;
      event.preventDefault();
    };
    input.onblur = () => finish(true);
    item.row.name.replaceWith(input);
    input.focus();
    input.select();
  }
}

export function percent(share) {
  if (share > 0 && share < 0.005) return "<1 %";
  return `${Math.round(share * 100)} %`;
}

function element(tag, name) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (tag === "button") made.type = "button";
  return made;
}
