import { describe, expect, it } from "vitest";
import { even, mistakes, NOTHING, rivals, targets, weigh, yaml } from "../src/lib/shifting";
import { inventory } from "./mesh";

const MESH = inventory([{ app: "reviews", version: "v1" }, { app: "reviews", version: "v2" }, { app: "reviews", version: "v3" }]);
const SERVICE = MESH.services[0]!;
const weights = (all: { weight: number }[]) => all.map((it) => it.weight);

const EACH = `    fault:
      delay:
        percentage:
          value: 10
        fixedDelay: 1s
      abort:
        percentage:
          value: 100
        httpStatus: 503
    timeout: 2s
    retries:
      attempts: 3
      perTryTimeout: 500ms
    mirror:
      host: reviews.default.svc.cluster.local
      subset: v3
    mirrorPercentage:
      value: 5
`;

describe("traffic shifting", () => {
  it("starts evenly, and weights are a hundred whatever is changed", () => {
    let all = targets(SERVICE, MESH);
    expect(weights(all)).toEqual([34, 33, 33]);
    for (const [index, weight] of [[0, 90], [1, 100], [2, 1], [0, 0], [1, 50.4], [2, 500], [0, -3]] as const) {
      all = weigh(all, index, weight);
      expect(weights(all).reduce((sum, it) => sum + it, 0)).toBe(100);
      expect(weights(all).every((it) => it >= 0 && it <= 100)).toBe(true);
    }
    expect(weights(even(all))).toEqual([34, 33, 33]);
    expect(weights(weigh(all.slice(0, 1), 0, 20))).toEqual([100]);
  });

  it("writes subsets only where they are missing", () => {
    const all = weigh(targets(SERVICE, MESH), 2, 100);
    const text = yaml(SERVICE, all);
    expect(text).toContain("kind: DestinationRule");
    expect(text).toContain("weight: 100");
    expect(text).not.toContain("weight: 0");
    const known = { ...SERVICE, subsets: ["v1", "v2", "v3"].map((version) => ({ name: version, labels: { version } })) };
    expect(yaml(known, targets(known, MESH))).not.toContain("DestinationRule");
  });

  it("quotes what could be something else, so that no name becomes YAML", () => {
    const hostile = { ...SERVICE, name: "a\nkind: Secret", subsets: [] };
    const text = yaml(hostile, [{ subset: "1.0", version: "true", weight: 100 }]);
    expect(text.split("\n").filter((line) => line.startsWith("kind:"))).toEqual(["kind: DestinationRule", "kind: VirtualService"]);
    expect(text).toContain('version: "true"');
    expect(text).toContain('subset: "1.0"');
  });

  it("writes what else is chosen, for each rule", () => {
    const known = { ...SERVICE, subsets: ["v1", "v2", "v3"].map((version) => ({ name: version, labels: { version } })) };
    const extras = { ...NOTHING, header: "End-User", value: "jason", to: "v2", timeout: "2s", attempts: "3", perTry: "500ms", delay: "1s", delayPercent: "10", abort: "503", mirror: "v3", mirrorPercent: "5" };
    expect(mistakes(extras)).toEqual([]);
    expect(yaml(known, weigh(targets(known, MESH), 0, 100), extras)).toBe(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  namespace: default
spec:
  hosts:
  - reviews.default.svc.cluster.local
  http:
  - match:
    - headers:
        end-user:
          exact: jason
${EACH}    route:
    - destination:
        host: reviews.default.svc.cluster.local
        subset: v2
${EACH.replace("    fault", "  - fault")}    route:
    - destination:
        host: reviews.default.svc.cluster.local
        subset: v1
      weight: 100
`);
  });

  it("says what is wrong with what is chosen", () => {
    expect(mistakes({ ...NOTHING, timeout: "soon", abort: "9", attempts: "x", delayPercent: "101", header: "a" })).toHaveLength(5);
    expect(mistakes({ ...NOTHING, header: "a: b\nc", to: "v1" })).toEqual(["That is no name of a header."]);
  });

  it("knows rules of others for the same host", () => {
    const rule = (kind: string, name: string) => ({ kind, namespace: "default", name, file: "", line: 0 });
    const service = { ...SERVICE, rules: [rule("VirtualService", "reviews"), rule("VirtualService", "other"), rule("DestinationRule", "other")] };
    expect(rivals(service)).toEqual(["default/other"]);
  });
});
