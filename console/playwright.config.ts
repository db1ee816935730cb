import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: "e2e",
  outputDir: "test-results",
  globalSetup: "./e2e/mesh.ts",
  // They share one mesh, and what some change others look at.
  workers: 1,
  fullyParallel: false,
  retries: 0,
  // Nothing here depends on how fast the machine is: a limit is what is surely broken.
  timeout: 300_000,
  expect: { timeout: 60_000 },
  reporter: [["list"]],
  use: {
    browserName: "chromium",
    viewport: { width: 1280, height: 800 },
    launchOptions: {
      executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
      // A browser in a container of root's has no sandbox of its own, and it has nothing to say to anybody outside.
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    },
  },
});
