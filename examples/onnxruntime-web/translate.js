// Translates an image with model.onnx, which `cyclegan export --image-io` wrote: pixels in,
// pixels of the same size out.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

// The network needs about 1 GB of memory a megapixel, and WebAssembly has 4 GB at most.
const MOST_PIXELS = 1_000_000;

ort.env.wasm.wasmPaths = {
  wasm: new URL("./node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", import.meta.url).href,
};
ort.env.wasm.numThreads = 1; // More need headers that a plain file server does not send.

const element = (id) => document.getElementById(id);

function say(sentence, failed = false) {
  element("status").textContent = sentence;
  element("status").classList.toggle("failed", failed);
}

// RGBA, as canvases have it, to RGB, as the model takes it.
function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  return rgb;
}

function withAlpha(rgb) {
  const rgba = new Uint8ClampedArray((rgb.length / 3) * 4).fill(255);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from];
    rgba[to + 1] = rgb[from + 1];
    rgba[to + 2] = rgb[from + 2];
  }
  return rgba;
}

// Draws an image file and returns its pixels; large images are downsampled.
async function draw(file, canvas) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
  canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // Background of transparent images.
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function translate(session, image) {
  const pixels = withoutAlpha(image.data);
  const picture = new ort.Tensor("uint8", pixels, [1, image.height, image.width, 3]);
  const { translation } = await session.run({ picture });
  return new ImageData(withAlpha(translation.data), image.width, image.height);
}

async function show(session, file) {
  say("translating …");
  element("save").hidden = true;
  const image = await draw(file, element("before"));
  await new Promise(requestAnimationFrame); // The browser draws before it computes.
  const begin = performance.now();
  const translated = await translate(session, image);
  const canvas = element("after");
  canvas.width = translated.width;
  canvas.height = translated.height;
  canvas.getContext("2d").putImageData(translated, 0, 0);
  element("save").href = canvas.toDataURL("image/png");
  element("save").hidden = false;
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  say(`${image.width} × ${image.height} pixels in ${seconds} s`);
}

async function start() {
  const response = await fetch("model.onnx");
  if (!response.ok) {
    throw new Error(`there is no model.onnx beside this page (${response.status})`);
  }
  const session = await ort.InferenceSession.create(await response.arrayBuffer());
  const input = session.inputMetadata[0];
  if (input.type !== "uint8" || input.shape[3] !== 3) {
    throw new Error("model.onnx takes no pixels: export it with --image-io");
  }
  const chooser = element("image");
  chooser.addEventListener("change", () => {
    chooser.disabled = true;
    show(session, chooser.files[0])
      .catch((error) => say(`failed: ${error.message}`, true))
      .finally(() => (chooser.disabled = false));
  });
  chooser.disabled = false;
  say("choose one");
}

start().catch((error) => say(`failed: ${error.message}`, true));
