/** Points that run along edges: dense where there is much traffic, slow where answers take long, red as far as they fail. */

import type { Edge } from "./graph";
import { along } from "./layout";

/** Points of a line that are known beforehand, so that a frame only looks them up. */
const SAMPLES = 48;
/** More than this many are no better to look at. */
const MOST = 450;

interface Track {
  samples: Float32Array;
  length: number;
  count: number;
  /** Pixels a second. */
  speed: number;
  failing: number;
}

export interface View { x: number; y: number; scale: number }

export interface Colours { fine: string; failing: string }

/** Tracks of a graph, kept while lines stay where they are. */
export class Animation {
  #lines = new Map<readonly object[], { samples: Float32Array; length: number }>();
  #tracks: Track[] = [];

  set(edges: Edge[], lines: Record<string, { x: number; y: number }[]>) {
    const before = this.#lines;
    this.#lines = new Map();
    this.#tracks = [];
    for (const edge of edges) {
      const points = lines[edge.id];
      if (!points || edge.sum.rate === 0) continue;
      const line = before.get(points) ?? sampled(points);
      this.#lines.set(points, line);
      const density = Math.min(1, Math.log10(1 + edge.sum.rate) / 2.5);
      this.#tracks.push({
        ...line,
        count: Math.max(1, Math.round((line.length / 60) * (0.35 + 1.6 * density))),
        speed: speed(edge.sum.latency?.p95 ?? 0),
        failing: edge.sum.outcomes.failed + edge.sum.outcomes.unanswered,
      });
    }
    const all = this.#tracks.reduce((sum, track) => sum + track.count, 0);
    if (all > MOST) for (const track of this.#tracks) track.count = Math.max(1, Math.floor((track.count * MOST) / all));
  }

  draw(context: CanvasRenderingContext2D, view: View, colours: Colours, seconds: number) {
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    const ratio = devicePixelRatio;
    const size = Math.max(2, 3.2 * Math.min(1.3, view.scale)) * ratio;
    for (const track of this.#tracks) {
      for (let index = 0; index < track.count; index += 1) {
        const share = (index / track.count + (seconds * track.speed) / Math.max(track.length, 1)) % 1;
        const at = Math.min(SAMPLES - 1, Math.floor(share * SAMPLES)) * 2;
        const x = (track.samples[at]! * view.scale + view.x) * ratio;
        const y = (track.samples[at + 1]! * view.scale + view.y) * ratio;
        if (x < 0 || y < 0 || x > width || y > height) continue;
        // The same points are red for as long as the share of failures is the same.
        context.fillStyle = (index * 0.618) % 1 < track.failing ? colours.failing : colours.fine;
        context.beginPath();
        context.arc(x, y, size, 0, 7);
        context.fill();
      }
    }
  }
}

function sampled(points: { x: number; y: number }[]): { samples: Float32Array; length: number } {
  const samples = new Float32Array(SAMPLES * 2);
  let length = 0;
  for (let index = 0; index < SAMPLES; index += 1) {
    const point = along(points, index / (SAMPLES - 1));
    samples[index * 2] = point.x;
    samples[index * 2 + 1] = point.y;
    if (index > 0) length += Math.hypot(point.x - samples[index * 2 - 2]!, point.y - samples[index * 2 - 1]!);
  }
  return { samples, length };
}

/** From 150 pixels a second for answers at once to 20 for those that take two seconds. */
function speed(milliseconds: number): number {
  const slow = Math.min(1, Math.log10(1 + milliseconds) / Math.log10(2001));
  return 150 - 130 * slow;
}
