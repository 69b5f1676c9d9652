// Reference values of the expression net, computed by the original, into the file that the second word names:
//   npm pack @vladmandic/face-api@1.7.15 && tar xzf *.tgz && node face_api_expression.js package OUT.json
// The bundle is made for browsers: it is told that this is one.
const fs = require("fs");
const [, , home, out] = process.argv;
globalThis.window = globalThis;
globalThis.document = { createElement: () => ({ getContext: () => null }) };
Object.defineProperty(globalThis, "navigator", { value: { userAgent: "", vendor: "" }, configurable: true });
const code = fs.readFileSync(`${home}/dist/face-api.js`, "utf8");
const faceapi = new Function("require", `${code};return faceapi;`)(require);

(async () => {
  const tf = faceapi.tf;
  await tf.setBackend("cpu");
  await tf.ready();
  const bytes = fs.readFileSync(`${home}/model/face_expression_model.bin`);
  const manifest = JSON.parse(fs.readFileSync(`${home}/model/face_expression_model-weights_manifest.json`));
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const net = faceapi.nets.faceExpressionNet;
  net.loadFromWeightMap(tf.io.decodeWeights(buffer, manifest[0].weights));
  const features = [];
  for (let number = 0; number < 3; number++) {
    const pixels = new Float32Array(112 * 112 * 3);
    let place = 0;
    for (let row = 0; row < 112; row++)
      for (let column = 0; column < 112; column++)
        for (let colour = 0; colour < 3; colour++)
          pixels[place++] = (row * row * (number + 1) + column * (7 + number) + 29 * colour * row) % 256;
    const given = new faceapi.NetInput([tf.tensor4d(pixels, [1, 112, 112, 3])]);
    features.push(Array.from(net.faceFeatureExtractor.forwardInput(given).dataSync()));
  }
  fs.writeFileSync(out, JSON.stringify(features));
})();
