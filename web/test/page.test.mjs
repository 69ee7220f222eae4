// The pages that programs write and serve, in a real browser: compare.py's, whose parts report.html is made of, and view.py's.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { NO_BROWSER, launch, openPage } from "./browser.mjs";
import { PYTHON, python } from "./bundle.mjs";
import { REPOSITORY } from "./server.mjs";

const MODEL = "demo/snowmiku/pretrained/point_cloud/iteration_15000/point_cloud.ply";

/** Resolves when the viewer of a page has drawn all of it. */
const settled = (page) =>
  page.waitForFunction(async () => {
    const viewer = document.querySelector("gsz-viewer");
    if (!viewer?.view?.models.some((model) => model?.counts.length)) return false;
    await viewer.settled();
    return true;
  }, null, { timeout: 120_000 });

describe("pages", { skip: NO_BROWSER, timeout: 240_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "gsz-pages-"));
  const small = join(folder, "small.gsz");
  let browser;

  before(async () => {
    python("-c", `import gsz; gsz.convert("${MODEL}", "${small}", "gsz:quality=tiny")`);
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true });
  });

  for (const [colorScheme, width] of [["light", 1100], ["dark", 390]]) {
    test(`compare.py's page works from disk, ${colorScheme} and ${width} pixels wide`, async () => {
      const file = join(folder, "page.html");
      if (width === 1100) python("compare.py", small, MODEL, "--view_count", "4", "--backend", "cpu", "--html", file);
      const { context, page, complaints } = await openPage(browser, { viewport: { width, height: 800 }, colorScheme });
      await context.setOffline(true);
      const requests = [];
      page.on("request", (request) => requests.push(request.url()));
      await page.goto(pathToFileURL(file).href);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);

      await page.locator("input[type=range]").first().focus();
      await page.keyboard.press("Home");
      assert.equal(await page.locator(".slider").first().evaluate((slider) => slider.style.getPropertyValue("--at")), "0%");

      const table = page.locator("table").last();
      const values = () => table.locator("tbody tr td:nth-child(2)").allTextContents().then((texts) => texts.map(Number));
      const sorted = (await values()).sort((one, other) => one - other);
      await table.locator("th button").nth(1).click();
      assert.deepEqual(await values(), sorted);

      await page.locator("article button[data-camera]").first().click();
      await settled(page);
      const fetched = requests.filter((address) => !/^(data|blob|file):/.test(address));
      assert.deepEqual([fetched, complaints], [[], []]);
      await context.close();
    });
  }

  test("view.py serves two models to choose from", async () => {
    const words = ["view.py", small, MODEL, "--no_open"];
    const program = spawn(PYTHON, words, { cwd: REPOSITORY });
    try {
      const [line] = await new Promise((resolve) => program.stdout.once("data", (data) => resolve(String(data).split("\n"))));
      const { context, page, complaints } = await openPage(browser, { viewport: { width: 800, height: 600 } });
      await page.goto(line.split(" ")[0]);
      await settled(page);
      await page.waitForFunction(() => {
        const all = [...document.querySelectorAll(".choice select")];
        return all.length === 2 && all.every((select) => select.selectedOptions[0]);
      });
      const choices = page.locator(".choice select");
      assert.deepEqual(await choices.evaluateAll((all) => all.map((select) => select.selectedOptions[0].text.split(" ")[0])), [
        "small.gsz",
        "point_cloud.ply",
      ]);
      assert.deepEqual(complaints, []);
      await context.close();
    } finally {
      program.kill("SIGINT");
    }
  });
});
