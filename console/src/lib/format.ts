/** Figures as people read them. */

/** Three digits that count: `0.05`, `4.2`, `310`, `12.5k`. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 1e4) return `${trim(value / 1e3)}k`;
  if (size >= 100) return value.toFixed(0);
  return trim(value);
}

function trim(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/\.0+$|(\.\d*?)0+$/, "$1");
}

export function milliseconds(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value >= 10_000) return `${trim(value / 1000)} s`;
  return value >= 10 ? `${value.toFixed(0)} ms` : `${trim(value)} ms`;
}

/** A share from 0 to 1. What is a little is not nothing, and what is not all is not all. */
export function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.1) return "<0.1%";
  if (value > 99.9 && value < 100) return ">99.9%";
  return `${trim(Math.round(value * 10) / 10)}%`;
}

export function bytes(perSecond: number): string {
  if (perSecond >= 1 << 20) return `${trim(perSecond / (1 << 20))} MiB/s`;
  if (perSecond >= 1 << 10) return `${trim(perSecond / (1 << 10))} KiB/s`;
  return `${perSecond.toFixed(0)} B/s`;
}

/** `3 proxies`, `1 proxy`. */
export function count(value: number, one: string, more = `${one}s`): string {
  return `${value} ${value === 1 ? one : more}`;
}

/** How long ago, or until when, in the largest unit that says enough. */
export function span(milliseconds: number): string {
  const seconds = Math.round(Math.abs(milliseconds) / 1000);
  const units: [number, string][] = [[86_400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, unit] of units) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

/** Where something stands, without the folders. */
export function fileName(file: string): string {
  return file.slice(file.lastIndexOf("/") + 1);
}
