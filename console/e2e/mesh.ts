/** A mesh for all tests: Bookinfo on this machine, called again and again. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");
const LATEEN = process.env.LATEEN_BIN ?? join(ROOT, "target/debug/lateen");
const FILES = ["bookinfo.yaml", "gateway.yaml", "destination-rules.yaml"];

export function lateen(...words: string[]): string {
  return execFileSync(LATEEN, words, { encoding: "utf8", cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
}

/** The control plane's process, by the state directory of this very mesh. */
export function controlPlane(): number {
  const state = process.env.LATEEN_STATE_DIR!;
  for (const pid of readdirSync("/proc").filter((it) => /^\d+$/.test(it))) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      if (words[0]?.endsWith("lateend") && words.includes(state)) return Number(pid);
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error("no lateend of this mesh runs");
}

export default async function setUp(): Promise<() => Promise<void>> {
  const state = mkdtempSync(join(tmpdir(), "lateen-console-"));
  process.env.LATEEN_STATE_DIR = state;
  const input = FILES.flatMap((file) => ["-f", `samples/bookinfo/${file}`]);
  let calling = true;
  const end = async () => {
    calling = false;
    lateen("down");
    rmSync(state, { recursive: true, force: true });
  };
  try {
    lateen("up", "--detach", "--publish", "0:8080", "--console-port", "0", ...input, "--images", "samples/bookinfo/images.yaml");
    const status = JSON.parse(lateen("status", "-o", "json")) as { app: string[]; console: string };
    process.env.CONSOLE = status.console;
    process.env.OWNED = lateen("dashboard", "--url").trim();
    const page = `${status.app[0]!.replace(/\/$/, "")}/productpage`;
    void (async () => {
      while (calling) {
        await fetch(page).then((response) => response.arrayBuffer()).catch(() => undefined);
        await new Promise((done) => setTimeout(done, 100));
      }
    })();
  } catch (error) {
    await end().catch(() => undefined);
    throw error;
  }
  return end;
}
