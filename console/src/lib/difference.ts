/** Lines that differ between two texts, with some around them. Pure. */

export interface Line { sign: " " | "+" | "-" | "…"; text: string }

/** So many lines around a difference are shown. */
const AROUND = 3;
/** Longer texts are shown one after the other: the table below is as large as one by the other. */
const MOST = 1500;

export function difference(before: string, after: string): Line[] {
  const [a, b] = [lines(before), lines(after)];
  if (a.length > MOST || b.length > MOST) {
    return [...a.map((text): Line => ({ sign: "-", text })), ...b.map((text): Line => ({ sign: "+", text }))];
  }
  return shortened(all(a, b));
}

const lines = (text: string) => (text === "" ? [] : text.replace(/\n$/, "").split("\n"));

/** By the longest common subsequence. */
function all(a: string[], b: string[]): Line[] {
  const width = b.length + 1;
  const table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const same = table[(i + 1) * width + j + 1]! + 1;
      table[i * width + j] = a[i] === b[j] ? same : Math.max(table[(i + 1) * width + j]!, table[i * width + j + 1]!);
    }
  }
  const out: Line[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      out.push({ sign: " ", text: a[i]! });
      [i, j] = [i + 1, j + 1];
    } else if (i < a.length && (j === b.length || table[(i + 1) * width + j]! >= table[i * width + j + 1]!)) {
      out.push({ sign: "-", text: a[i]! });
      i += 1;
    } else {
      out.push({ sign: "+", text: b[j]! });
      j += 1;
    }
  }
  return out;
}

function shortened(whole: Line[]): Line[] {
  const near = whole.map((_, index) =>
    whole.slice(Math.max(0, index - AROUND), index + AROUND + 1).some((line) => line.sign !== " "),
  );
  const out: Line[] = [];
  for (const [index, line] of whole.entries()) {
    if (near[index]) out.push(line);
    else if (out.at(-1)?.sign !== "…") out.push({ sign: "…", text: "" });
  }
  return out;
}
