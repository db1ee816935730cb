import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

/**
 * Leaves `dist` as lateend's build embeds it: nothing of an earlier build, and beside each text its gzip. `dist` itself
 * stays, with the file that keeps it in the tree, so that cargo can watch it where nobody has built the console.
 */
function embeddable(): Plugin {
  const written: string[] = [];
  return {
    name: "embeddable",
    apply: "build",
    buildStart() {
      for (const old of ["assets", "index.html", "index.html.gz", "icon.svg", "icon.svg.gz"]) {
        rmSync(`dist/${old}`, { recursive: true, force: true });
      }
    },
    writeBundle(_, bundle) {
      written.push("icon.svg", ...Object.keys(bundle));
    },
    closeBundle() {
      for (const name of written) {
        const text = readFileSync(`dist/${name}`);
        writeFileSync(`dist/${name}.gz`, gzipSync(text, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [svelte(), embeddable()],
  build: {
    target: "es2022",
    emptyOutDir: false,
    // Inlined assets would be `data:` URLs, which the console's policy does not load.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  worker: { format: "es" },
  // `npm run dev` beside a mesh: the address of its console, where it has not the usual one.
  server: { proxy: { "/api": { target: process.env.CONSOLE ?? "http://localhost:15080", changeOrigin: false } } },
});
