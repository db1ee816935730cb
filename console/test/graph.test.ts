import { describe, expect, it } from "vitest";
import { build, filter, shapeKey, type Options } from "../src/lib/graph";
import { errorPercent } from "../src/lib/traffic";
import { call, inventory, traffic } from "./mesh";

const options = (change: Partial<Options> = {}): Options => ({
  kind: "versioned", namespaces: [], idle: true, faulty: new Set(), unsynced: new Set(), ...change,
});
const MESH = inventory([
  { app: "web" }, { app: "reviews", version: "v1" }, { app: "reviews", version: "v2" }, { app: "stock", namespace: "depot" }, { app: "old", proxy: "none" },
]);
const CALLS = traffic([
  call("", "default/web-v1", { security: "none" }),
  call("default/web-v1", "default/reviews-v1"),
  call("default/web-v1", "default/reviews-v2", {
    requestsPerSecond: 30,
    responses: [{ code: "200", grpcStatus: null, flags: null, count: 60 }, { code: "503", grpcStatus: null, flags: "UF", count: 40 }],
  }),
  call("default/reviews-v2", "depot/stock-v1"),
]);
const names = (graph: { nodes: { name: string; detail: string }[] }) => graph.nodes.map((it) => `${it.name} ${it.detail}`.trim()).sort();

describe("the graph", () => {
  it("has a node for each version of an app, and whoever calls from outside", () => {
    const graph = build(MESH, CALLS, options());
    expect(names(graph)).toEqual(["old v1", "outside callers without a proxy", "reviews v1", "reviews v2", "stock v1", "web v1"]);
    expect(graph.edges).toHaveLength(4);
  });

  it("puts the versions of an app together where it is by app, and their calls with them", () => {
    const graph = build(MESH, CALLS, options({ kind: "app" }));
    expect(names(graph)).toEqual(["old", "outside callers without a proxy", "reviews", "stock", "web"]);
    const edge = graph.edges.find((it) => it.facts.source === "web" && it.facts.destination === "reviews")!;
    expect(edge.sum.rate).toBe(40);
    expect(errorPercent(edge.sum)).toBeCloseTo((100 * 40) / 700);
    expect(edge.sum.responses).toEqual({ "200": 660, "503 UF": 40 });
  });

  it("can be by service", () => {
    const graph = build(MESH, CALLS, options({ kind: "service" }));
    expect(graph.nodes.filter((it) => it.kind === "service").map((it) => it.name).sort()).toEqual(["old", "reviews", "stock", "web"]);
    expect(graph.edges.map((it) => it.to).sort()).toContain("service/stock.depot.svc.cluster.local");
  });

  it("knows what is healthy, what is idle, what has no proxy and what is not secured", () => {
    const graph = build(MESH, CALLS, options({ unsynced: new Set(["stock-v1-1.depot"]) }));
    const node = (name: string) => graph.nodes.find((it) => `${it.name} ${it.detail}` === name)!;
    expect(node("reviews v2").health).toBe("failure");
    expect(node("reviews v1").health).toBe("healthy");
    expect(node("stock v1").health).toBe("degraded");
    expect([node("old v1").health, node("old v1").sidecar]).toEqual(["idle", false]);
    expect(graph.edges.map((it) => it.facts.mtls)).toEqual([false, true, true, true]);
  });

  it("of one namespace has whoever calls it, too", () => {
    const graph = build(MESH, CALLS, options({ namespaces: ["depot"] }));
    expect(names(graph)).toEqual(["reviews v2", "stock v1"]);
    expect(names(build(MESH, CALLS, options({ idle: false })))).not.toContain("old v1");
  });

  it("marks what a finding is about", () => {
    const graph = build(MESH, CALLS, options({ faulty: new Set(["Service default/reviews"]) }));
    expect(graph.nodes.filter((it) => it.misconfigured).map((it) => it.name)).toEqual(["reviews", "reviews"]);
  });

  it("shows workloads that are gone and hosts that nobody knows", () => {
    const gone = call("default/gone-v1", "default/web-v1");
    const away = { ...call("default/web-v1", "default/reviews-v1"), destination: { ...gone.source, workload: null }, service: { host: "example.com", name: null, namespace: null } };
    const graph = build(MESH, traffic([gone, away]), options({ idle: false }));
    expect(names(graph)).toEqual(["example.com outside the mesh", "gone-v1 not there any more", "web v1"]);
  });

  it("finds and hides, and does not move for figures", () => {
    const graph = build(MESH, CALLS, options());
    const { graph: left, found } = filter(graph, "httperr > 5", "idle or !sidecar");
    expect(left.nodes.some((it) => it.name === "old")).toBe(false);
    expect([...found!].map((id) => id.replace("app/default/", ""))).toEqual(["reviews/v2", "app/default/web/v1 → app/default/reviews/v2".replace("app/default/", "")]);
    const later = build(MESH, traffic(CALLS.edges.map((it) => ({ ...it, requestsPerSecond: 99 }))), options());
    expect(shapeKey(later)).toBe(shapeKey(graph));
  });
});
