// Opens the example's page in headless Chromium, chooses a picture and prints what comes of it:
// node browser.mjs MODULES CHROMIUM URL PICTURE SCREENSHOT
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url, picture, screenshot] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "/"))("playwright-core");
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const page = await browser.newPage({ viewport: { width: 900, height: 560 } });
  const requests = [];
  const problems = [];
  page.on("request", (request) => requests.push(`${request.method()} ${request.url()}`));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(url);
  const status = page.locator("#status");
  const settled = () =>
    page.waitForFunction(() => !document.getElementById("status").textContent.endsWith("…"), null, {
      timeout: 90_000,
    });
  await settled();
  const loaded = await status.textContent();
  const before = requests.length;
  let pixels = null;
  if (await page.locator("#picture").isEnabled()) {
    await page.setInputFiles("#picture", picture);
    await page.waitForFunction(
      () => document.getElementById("status").textContent !== "choose one",
    );
    await settled();
    pixels = await page.evaluate(() => document.getElementById("after").toDataURL("image/png"));
  }
  await page.screenshot({ path: screenshot });
  const report = {
    loaded,
    status: await status.textContent(),
    pixels,
    requests,
    requestsAfterChoosing: requests.slice(before).filter((line) => !line.includes("data:")),
    problems,
  };
  console.log(JSON.stringify(report));
} finally {
  await browser.close();
}
