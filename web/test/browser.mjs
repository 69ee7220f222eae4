// A real browser: Debian's chromium, headless, whose graphics SwiftShader computes on the processor.
import { spawnSync } from "node:child_process";
import { chromium } from "playwright-core";

const NAMES = [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"].filter(Boolean);
const found = NAMES.map((name) => spawnSync("sh", ["-c", 'command -v "$0"', name], { encoding: "utf8" }).stdout.trim()).find(Boolean);

/** What a test without a browser says. */
export const NO_BROWSER = found ? false : "there is no browser here: apt-get install chromium";

const FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"];

export const launch = (flags = []) => chromium.launch({ executablePath: found, args: [...FLAGS, ...flags] });

/** A page, and everything that it complains about. */
export async function openPage(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 400, height: 300 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.stack));
  return { context, page, complaints };
}

/** What the page shows: `{ width, height, rgb }`, from a screenshot that the browser itself decodes. */
export async function picture(page) {
  const png = (await page.screenshot()).toString("base64");
  const { width, height, base64 } = await page.evaluate(async (encoded) => {
    const blob = await (await fetch(`data:image/png;base64,${encoded}`)).blob();
    const bitmap = await createImageBitmap(blob);
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    let binary = "";
    for (let i = 0; i < data.length; i++) if (i % 4 < 3) binary += String.fromCharCode(data[i]);
    return { width: bitmap.width, height: bitmap.height, base64: btoa(binary) };
  }, png);
  return { width, height, rgb: Buffer.from(base64, "base64") };
}

/** PSNR in dB of two pictures of bytes. */
export function psnr(one, other) {
  if (one.length !== other.length) throw new Error(`pictures of ${one.length} and ${other.length} bytes`);
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += (one[i] - other[i]) ** 2;
  return 10 * Math.log10((255 ** 2 * one.length) / sum);
}
