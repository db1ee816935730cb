/** uPlot with our colours; a part of its own, so that pages without charts do not load it. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { number } from "./format";

interface Wanted {
  height: number;
  lines: { name: string; colour: string }[];
  data: uPlot.AlignedData;
}

export function draw(place: HTMLElement, { height, lines, data }: Wanted): uPlot {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  return new uPlot(
    {
      width: place.clientWidth,
      height,
      legend: { show: false },
      cursor: { show: false },
      padding: [6, 8, 0, 0],
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
      axes: [
        { ...axis, size: 26, space: 70, values: (_, splits) => splits.map(clock) },
        { ...axis, size: 44, values: (_, splits) => splits.map(number) },
      ],
      series: [
        {},
        ...lines.map((line) => ({
          label: line.name,
          stroke: colour(line.colour),
          width: 1.8,
          points: { show: false },
          fill: lines.length === 1 ? `${colour(line.colour)}22` : undefined,
        })),
      ],
    },
    data,
    place,
  );
}

const clock = (seconds: number) =>
  new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
