import { expect, it } from "vitest";
import { along, layout, path, type Shape } from "../src/lib/layout";

const node = (id: string, box = "") => ({ id, width: 100, height: 40, box });

it("puts clients left of servers, keeps nodes apart and boxes around their own", () => {
  const shape: Shape = {
    nodes: [node("a", "x"), node("b", "x"), node("c", "y"), node("alone")],
    edges: [{ id: "a → b", from: "a", to: "b" }, { id: "b → c", from: "b", to: "c" }, { id: "c → c", from: "c", to: "c" }],
  };
  const placed = layout(shape);
  const at = (id: string) => placed.nodes[id]!;
  expect(at("a").x).toBeLessThan(at("b").x);
  expect(at("b").x).toBeLessThan(at("c").x);
  for (const one of shape.nodes) {
    for (const other of shape.nodes.filter((it) => it.id > one.id)) {
      const apart = Math.abs(at(one.id).x - at(other.id).x) >= 100 || Math.abs(at(one.id).y - at(other.id).y) >= 40;
      expect(apart, `${one.id} and ${other.id}`).toBe(true);
    }
  }
  const box = placed.boxes["x"]!;
  for (const id of ["a", "b"]) expect(at(id).x > box.x && at(id).x < box.x + box.width && at(id).y > box.y).toBe(true);
  for (const { x, y, width, height } of Object.values(placed.boxes)) {
    expect(x >= 0 && y >= 0 && x + width <= placed.width && y + height <= placed.height).toBe(true);
  }
  expect(placed.edges["c → c"]!.length).toBeGreaterThan(1);
});

it("of five hundred services is ready", () => {
  const nodes = Array.from({ length: 500 }, (_, index) => node(`n${index}`, `ns${index % 20}`));
  const edges = Array.from({ length: 900 }, (_, index) => ({ id: `e${index}`, from: `n${index % 480}`, to: `n${(index * 7 + 20) % 500}` }));
  const placed = layout({ nodes, edges });
  expect(Object.keys(placed.nodes)).toHaveLength(500);
  expect(Object.values(placed.nodes).every(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))).toBe(true);
}, 60_000);

it("walks along lines", () => {
  const line = [{ x: 0, y: 0 }, { x: 10, y: 0 }, { x: 10, y: 10 }];
  expect(along(line, 0)).toEqual({ x: 0, y: 0 });
  expect(along(line, 0.75)).toEqual({ x: 10, y: 5 });
  expect(along(line, 1)).toEqual({ x: 10, y: 10 });
  expect(path(line)).toBe("M0.0,0.0 Q10.0,0.0 10.0,10.0");
});
