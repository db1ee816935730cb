import { describe, expect, it } from "vitest";
import { NotUnderstood, parse, type Facts } from "../src/lib/find";

const node: Facts = { name: "reviews", namespace: "shop", version: "v2", idle: false, sidecar: true, httpin: 12, httperr: 6.5, fault: true };
const edge: Facts = { source: "productpage", destination: "reviews", mtls: false, rps: 3, httperr: 0, protocol: "http", rt: 250 };

describe("find expressions", () => {
  it.each<[string, boolean, boolean]>([
    ["httperr > 5", true, false],
    ["httperr >= 6.5", true, false],
    ["httperr > 5%", true, false],
    ["errors < 1", false, true],
    ["!mtls", false, true],
    ["not mtls", false, true],
    ["mtls", false, false],
    ["name = reviews", true, false],
    ["NAME is Reviews", true, false],
    ["name = 'reviews'", true, false],
    ["name != reviews", false, false],
    ["name *= view", true, false],
    ["name ^= rev and version = v2", true, false],
    ["name $= xyz", false, false],
    ["ns = shop", true, false],
    ["fi", true, false],
    ["!idle", true, false],
    ["rps > 1 and protocol = http", false, true],
    ["rps > 1 and protocol = tcp or rt >= 250", false, true],
    ["name = nobody or source = productpage", false, true],
    ["!httperr > 5", false, true],
  ])("%s", (text, ofNode, ofEdge) => {
    const holds = parse(text)!;
    expect([holds(node), holds(edge)]).toEqual([ofNode, ofEdge]);
  });

  it("is nothing without words", () => expect(parse("  ")).toBeNull());

  it.each([
    ["colour = red", "nothing is called “colour”"],
    ["versoin = v1", "did you mean “version”?"],
    ["httperr > many", "“many” is no number"],
    ["name = a and", "something is missing beside “and”"],
    ["or mtls", "something is missing beside “or”"],
    ["= 5", "is no condition"],
    ["name ? x", "is no condition"],
  ])("says what is wrong with “%s”", (text, words) => {
    expect(() => parse(text)).toThrow(NotUnderstood);
    expect(() => parse(text)).toThrow(words);
  });
});
