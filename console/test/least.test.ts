import { expect, it } from "vitest";
import { leastPrivilege } from "../src/lib/least";
import { call, inventory, traffic } from "./mesh";

const WORKLOAD = inventory([{ app: "cart" }]).workloads[0]!;
const from = (principal: string | null) => {
  const edge = call("default/web-v1", "default/cart-v1");
  return { ...edge, source: { ...edge.source, principal } };
};

it("allows who has called, once each, and tells of callers that nobody knows", () => {
  const seen = traffic([from("spiffe://cluster.local/ns/default/sa/web"), from("spiffe://cluster.local/ns/default/sa/web"), from("spiffe://cluster.local/ns/a/sa/b\"\nx"), from(null), call("default/web-v1", "default/other-v1")]);
  const proposal = leastPrivilege(WORKLOAD, seen);
  expect([proposal.callers.length, proposal.unknown]).toEqual([2, 1]);
  expect(proposal.text.split("\n").filter((line) => line.startsWith("        - "))).toEqual([
    '        - "cluster.local/ns/a/sa/b\\"\\nx"',
    '        - "cluster.local/ns/default/sa/web"',
  ]);
});

it("proposes nothing where nothing is known: a policy without callers would deny everybody", () => {
  expect(leastPrivilege(WORKLOAD, traffic([from(null)])).text).toBe("");
});

it("proposes nothing for a workload that no label tells from others", () => {
  const bare = { ...WORKLOAD, labels: { "pod-template-hash": "1" } };
  expect(leastPrivilege(bare, traffic([from("spiffe://cluster.local/ns/a/sa/b")])).text).toBe("");
});
