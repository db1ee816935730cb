/** Where nodes and edges go: layered by dagre, with a box around each namespace. Pure. */

import { Graph, layout as arrange } from "@dagrejs/dagre";

export interface Shape {
  nodes: { id: string; width: number; height: number; box: string }[];
  edges: { id: string; from: string; to: string }[];
  /** On narrow screens, from top to bottom. */
  down?: boolean;
}

export interface Placed {
  width: number;
  height: number;
  /** Centres. */
  nodes: Record<string, { x: number; y: number }>;
  /** Points from client to server. */
  edges: Record<string, { x: number; y: number }[]>;
  boxes: Record<string, { x: number; y: number; width: number; height: number }>;
}

/** From so many nodes on, a cheaper ranking: the best one takes seconds there. */
const MANY = 150;
const BOX_MARGIN = 18;
const BOX_TITLE = 26;

export function layout(shape: Shape): Placed {
  const graph = new Graph({ multigraph: true, compound: true });
  graph.setGraph({
    rankdir: shape.down ? "TB" : "LR",
    nodesep: 26,
    ranksep: shape.down ? 60 : 96,
    marginx: 30,
    marginy: 30,
    ranker: shape.nodes.length > MANY ? "longest-path" : "network-simplex",
  });
  graph.setDefaultEdgeLabel(() => ({}));
  const boxes = new Set(shape.nodes.map((node) => node.box).filter((box) => box !== ""));
  for (const node of shape.nodes) graph.setNode(node.id, { width: node.width, height: node.height });
  if (shape.nodes.length <= MANY) {
    for (const box of boxes) graph.setNode(boxId(box), {});
    for (const node of shape.nodes) if (node.box !== "") graph.setParent(node.id, boxId(node.box));
  }
  for (const edge of shape.edges) graph.setEdge(edge.from, edge.to, {}, edge.id);
  arrange(graph);
  return read(graph, shape, boxes);
}

const boxId = (box: string) => `box\u0000${box}`;

function read(graph: Graph, shape: Shape, boxes: Set<string>): Placed {
  const placed: Placed = { width: 0, height: 0, nodes: {}, edges: {}, boxes: {} };
  for (const { id } of shape.nodes) {
    const { x, y } = graph.node(id) as { x: number; y: number };
    placed.nodes[id] = { x, y };
  }
  for (const { id, from, to } of shape.edges) {
    const { points } = graph.edge(from, to, id) as { points: { x: number; y: number }[] };
    placed.edges[id] = points;
  }
  // Boxes are drawn around what is in them: dagre's own are wider than that.
  for (const box of boxes) {
    const own = shape.nodes.filter((node) => node.box === box);
    const at = (node: Shape["nodes"][number]) => placed.nodes[node.id] ?? { x: 0, y: 0 };
    const left = Math.min(...own.map((node) => at(node).x - node.width / 2)) - BOX_MARGIN;
    const right = Math.max(...own.map((node) => at(node).x + node.width / 2)) + BOX_MARGIN;
    const top = Math.min(...own.map((node) => at(node).y - node.height / 2)) - BOX_MARGIN - BOX_TITLE;
    const bottom = Math.max(...own.map((node) => at(node).y + node.height / 2)) + BOX_MARGIN;
    placed.boxes[box] = { x: left, y: top, width: right - left, height: bottom - top };
  }
  const all = Object.values(placed.boxes);
  const { width = 0, height = 0 } = graph.graph();
  // What a box adds beyond dagre's own margins must be seen, too.
  const x = Math.min(0, ...all.map((box) => box.x - 10));
  const y = Math.min(0, ...all.map((box) => box.y - 10));
  placed.width = Math.max(width, ...all.map((box) => box.x + box.width + 10)) - x;
  placed.height = Math.max(height, ...all.map((box) => box.y + box.height + 10)) - y;
  return x === 0 && y === 0 ? placed : moved(placed, -x, -y);
}

function moved(placed: Placed, dx: number, dy: number): Placed {
  const move = <T extends { x: number; y: number }>(point: T): T => ({ ...point, x: point.x + dx, y: point.y + dy });
  const each = <T, U>(record: Record<string, T>, change: (value: T) => U): Record<string, U> =>
    Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
  return {
    ...placed,
    nodes: each(placed.nodes, move),
    edges: each(placed.edges, (points) => points.map(move)),
    boxes: each(placed.boxes, move),
  };
}

/** A smooth line through points. */
export function path(points: { x: number; y: number }[]): string {
  const [first, ...rest] = points;
  if (!first) return "";
  let text = `M${first.x.toFixed(1)},${first.y.toFixed(1)}`;
  for (let index = 0; index < rest.length - 1; index += 1) {
    const [point, next] = [rest[index]!, rest[index + 1]!];
    const last = index === rest.length - 2;
    const end = last ? next : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    text += ` Q${point.x.toFixed(1)},${point.y.toFixed(1)} ${end.x.toFixed(1)},${end.y.toFixed(1)}`;
  }
  if (rest.length === 1) text += ` L${rest[0]!.x.toFixed(1)},${rest[0]!.y.toFixed(1)}`;
  return text;
}

/** The point at a share of a line's length. */
export function along(points: { x: number; y: number }[], share: number): { x: number; y: number } {
  const lengths = points.slice(1).map((point, index) => Math.hypot(point.x - points[index]!.x, point.y - points[index]!.y));
  let left = lengths.reduce((sum, length) => sum + length, 0) * share;
  for (const [index, length] of lengths.entries()) {
    if (left <= length && length > 0) {
      const [a, b] = [points[index]!, points[index + 1]!];
      return { x: a.x + ((b.x - a.x) * left) / length, y: a.y + ((b.y - a.y) * left) / length };
    }
    left -= length;
  }
  return points.at(-1) ?? { x: 0, y: 0 };
}
