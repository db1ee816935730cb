/** Words of YAML, as far as colours go: good enough to be read by, and never wrong about the text itself. Pure. */

export interface Word { kind: "key" | "string" | "comment" | "mark" | ""; text: string }

export function words(line: string): Word[] {
  const comment = /^(\s*)(#.*)$/.exec(line);
  if (comment) return [{ kind: "", text: comment[1]! }, { kind: "comment", text: comment[2]! }];
  if (/^(---|\.\.\.)/.test(line)) return [{ kind: "mark", text: line }];
  const match = /^(\s*(?:- +)*)([^\s:#"'[{][^:#]*|"[^"]*"|'[^']*')(:)(\s.*|)$/.exec(line);
  if (!match) {
    const item = /^(\s*- +)(.*)$/.exec(line);
    return item ? [{ kind: "", text: item[1]! }, ...value(item[2]!)] : value(line);
  }
  return [
    { kind: "", text: match[1]! },
    { kind: "key", text: match[2]! },
    { kind: "", text: ":" },
    ...value(match[4]!),
  ];
}

function value(text: string): Word[] {
  const at = / #/.exec(text)?.index;
  const [own, rest] = at === undefined ? [text, ""] : [text.slice(0, at + 1), text.slice(at + 1)];
  const kind = /^\s*["']/.test(own) ? "string" : "";
  return rest === "" ? [{ kind, text: own }] : [{ kind, text: own }, { kind: "comment", text: rest }];
}
