import { describe, expect, it } from "vitest";
import { difference } from "../src/lib/difference";
import { bytes, milliseconds, number, percent, span } from "../src/lib/format";
import { words } from "../src/lib/yaml";

describe("figures", () => {
  it.each([[0, "0"], [0.051, "0.05"], [4.2, "4.2"], [10, "10"], [12.34, "12.3"], [310.4, "310"], [9999, "9999"], [12_500, "12.5k"], [2e6, "2M"], [Number.NaN, "–"]])("%d is %s", (value, text) =>
    expect(number(value)).toBe(text));
  it.each([[0, "0%"], [1, "100%"], [0.0005, "<0.1%"], [0.99991, ">99.9%"], [0.125, "12.5%"], [0.5, "50%"]])("the share %d is %s", (value, text) =>
    expect(percent(value)).toBe(text));
  it("have units", () => {
    expect([milliseconds(null), milliseconds(4.25), milliseconds(250), milliseconds(12_500)]).toEqual(["–", "4.25 ms", "250 ms", "12.5 s"]);
    expect([bytes(10), bytes(2048), bytes(3 << 20)]).toEqual(["10 B/s", "2 KiB/s", "3 MiB/s"]);
    expect([span(5000), span(-150_000), span(7_200_000), span(3 * 86_400_000)]).toEqual(["5 s", "2 min", "2 h", "3 d"]);
  });
});

describe("differences", () => {
  it("show what has changed, and some lines around it", () => {
    const before = "a\nb\nc\nd\ne\nf\ng\nh\n";
    expect(difference(before, before.replace("f", "F")).map((it) => `${it.sign}${it.text}`)).toEqual(["…", " c", " d", " e", "-f", "+F", " g", " h"]);
    expect(difference("", "x\n").map((it) => it.sign)).toEqual(["+"]);
    expect(difference("x\n", "").map((it) => it.sign)).toEqual(["-"]);
  });
});

describe("colours of YAML", () => {
  it.each(["", "a: b", "  - name: \"x: y\" # why", "# all", "---", "- plain", "key:", "url: http://a:80/#x", "  <script>: 1", "weird: [a, b", "\"q\": 'r'"])(
    "leave “%s” as it is",
    (line) => expect(words(line).map((it) => it.text).join("")).toBe(line),
  );
  it("know keys and comments", () => {
    expect(words("  name: a # b").map((it) => it.kind)).toEqual(["", "key", "", "", "comment"]);
  });
});
