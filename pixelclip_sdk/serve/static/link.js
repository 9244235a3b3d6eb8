// The link: words and settings in the fragment of the address, which browsers do not send to a server.
// #w=cat&w=sofa:couch,settee&min=40&opacity=55&hide=cat&model=NAME

import { parseWords } from "./words.js";

/** Returns {words, off, limit, opacity, model} of the address, each undefined if it is not there. */
export function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const words = link.getAll("w").flatMap(parseWords);
  const number = (name) => {
    const value = Number.parseFloat(link.get(name));
    return Number.isFinite(value) ? Math.min(Math.max(Math.round(value), 0), 100) : undefined;
  };
  return {
    words: words.length ? words : undefined,
    off: link.getAll("hide"),
    limit: number("min"),
    opacity: number("opacity"),
    model: link.get("model") ?? undefined,
  };
}

export function writeLink({ items, limit, opacity, model }) {
  const link = new URLSearchParams();
  for (const { name, synonyms } of items) link.append("w", synonyms.length ? `${name}:${synonyms.join(",")}` : name);
  if (limit) link.set("min", limit);
  link.set("opacity", opacity);
  for (const { name, on } of items) if (!on) link.append("hide", name);
  if (model) link.set("model", model);
  history.replaceState(null, "", `#${link}`);
}
