import { expect, it } from "vitest";
import { ofReplicas, ofRequests, worst, type Health } from "../src/lib/health";

const requests = (change: object) => ofRequests({ protocol: "http", rate: 1, failed: 0, refused: 0, unanswered: 0, ...change });

it.each<[object, Health]>([
  [{}, "healthy"],
  [{ failed: 0.099 }, "healthy"],
  [{ failed: 0.1 }, "failure"],
  [{ refused: 0.099 }, "healthy"],
  [{ refused: 0.1 }, "degraded"],
  [{ refused: 0.2 }, "failure"],
  [{ unanswered: 0.1 }, "failure"],
  [{ rate: 0, failed: 1 }, "idle"],
])("requests with %o are %s", (change, health) => expect(requests(change)).toBe(health));

it.each<[number, number, number, Health]>([
  [3, 3, 0, "healthy"],
  [2, 3, 0, "degraded"],
  [3, 3, 1, "degraded"],
  [0, 3, 0, "failure"],
  [0, 0, 0, "idle"],
])("%i of %i pods, %i behind: %s", (ready, wanted, behind, health) => expect(ofReplicas(ready, wanted, behind)).toBe(health));

it("the worst counts", () => {
  expect(worst(["healthy", "failure", "idle"])).toBe("failure");
  expect(worst(["idle", "healthy"])).toBe("healthy");
  expect(worst([])).toBe("idle");
});
