import { expect, test } from "@playwright/test";

const at = (path: string) => new URL(path, process.env.CONSOLE).href;

test("shows who calls whom, live, and what is known of it", async ({ page }) => {
  await page.goto(at("/graph"));
  const node = page.getByRole("button", { name: /^productpage v1/ });
  await expect(node).toHaveAccessibleName(/a second in/);
  await node.click();
  const details = page.getByRole("complementary", { name: "Details" });
  await expect(details.getByText("a second").first()).toBeVisible();
  await details.getByRole("button", { name: /to reviews/ }).first().click();
  await expect(details.getByText("mutual TLS").first()).toBeVisible();
  await expect(page).toHaveURL(/select=/);
  await details.getByRole("link", { name: "Explain such a request" }).click();
  await expect(page.getByRole("region", { name: "Its way" })).toBeVisible();
  await page.goBack();
  await expect(details).toBeVisible();
});

test("has its whole state in the address", async ({ page }) => {
  await page.goto(at("/graph?by=service&find=name+%3D+reviews&labels=p95&mtls=no&animate=no"));
  await expect(page.getByRole("button", { name: /^reviews,/ })).toBeVisible();
  await expect(page.getByRole("combobox", { name: "Show by" })).toHaveValue("service");
  await expect(page.getByText("1 match", { exact: true })).toBeVisible();
  await page.getByRole("combobox", { name: "Find" }).fill("colour = red");
  await expect(page.getByRole("alert")).toContainText("nothing is called “colour”");
  await page.getByRole("combobox", { name: "Find" }).fill("");
  await page.getByRole("combobox", { name: "Hide" }).fill("name = reviews");
  await expect(page.getByRole("button", { name: /^reviews,/ })).toHaveCount(0);
  await expect(page).toHaveURL(/hide=name/);
});

test("can be used without a mouse", async ({ page }) => {
  await page.goto(at("/graph?animate=no"));
  await expect(page.getByRole("button", { name: /^reviews v1/ })).toBeVisible();
  const graph = page.getByRole("group", { name: /^Topology/ });
  await graph.focus();
  const before = await graph.locator("> g").getAttribute("transform");
  await page.keyboard.press("+");
  await page.keyboard.press("ArrowLeft");
  await expect(graph.locator("> g")).not.toHaveAttribute("transform", before!);
  await page.keyboard.press("0");
  await expect(graph.locator("> g")).toHaveAttribute("transform", before!);
  await page.getByRole("button", { name: /^reviews v1/ }).focus();
  await page.keyboard.press("Enter");
  await expect(page.getByRole("complementary", { name: "Details" })).toBeVisible();
  await graph.focus();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("complementary", { name: "Details" })).toHaveCount(0);
});
