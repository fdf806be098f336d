// Streams a folder of JPEGs as a camera would, on bare gRPC, and prints a JSON line for every outcome.
//
//   cd clients/node/samples/basic && npm ci && node basic.js --fps 10 ../../../../examples/football/clip
//
// The stubs are made from the proto when the program starts. Credit is ignored, which the default policy, LATEST,
// allows: where the server has no time, a newer frame replaces the waiting one, and that is told. With --fps 0 each
// frame waits for the outcome of the last: all are answered.
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const repository = fileURLToPath(new URL('../../../../', import.meta.url));
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: 'string', default: '127.0.0.1:50051' },
    model: { type: 'string', default: 'players' },
    fps: { type: 'string', default: '30' },
  },
});
const fps = Number(options.fps);
const folder = positionals[0] ?? join(repository, 'examples/football/clip');
const files = readdirSync(folder).filter((name) => name.endsWith('.jpg')).sort();

const definition = loadSync('headworks/v1/frame.proto', {
  includeDirs: [join(repository, 'proto')],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { FrameService } = grpc.loadPackageDefinition(definition).headworks.v1;
const stream = new FrameService(options.server, grpc.credentials.createInsecure()).StreamFrames();

let labels, closed;
let tell = () => {}; // resolves when an outcome has come
stream.on('data', ({ events }) => {
  for (const event of events) {
    if (event.opened) labels = event.opened.models[0].labels;
    if (event.closed) closed = event.closed;
    const outcome = outcomeOf(event);
    if (outcome) console.log(JSON.stringify(outcome));
    if (outcome) tell();
  }
});
stream.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
stream.on('end', () => {
  // After End the server has read every frame, and each has had its outcome.
  console.error(JSON.stringify(closed.ledger));
  process.exit(closed.ledger.received === files.length ? 0 : 1);
});

stream.write({ open: { models: [{ name: options.model }] } });
const start = performance.now();
for (const [i, name] of files.entries()) {
  const data = readFileSync(join(folder, name));
  if (fps > 0) await sleep(start + (i / fps) * 1000 - performance.now());
  const told = new Promise((resolve) => (tell = resolve));
  const capture_time = { seconds: Math.floor(Date.now() / 1000), nanos: (Date.now() % 1000) * 1e6 };
  const frame = { frame_id: i + 1, capture_time, encoding: 'ENCODING_JPEG', data };
  if (!stream.write({ frame })) await once(stream, 'drain');
  if (fps === 0) await told;
}
stream.write({ end: {} });

// Returns what became of a frame, or undefined for Credit, Notice and Pong.
function outcomeOf({ result, dropped, frame_error: failed }) {
  if (dropped) return { frame_id: dropped.first_frame_id, outcome: 'dropped', last_frame_id: dropped.last_frame_id };
  if (failed) return { frame_id: failed.frame_id, outcome: 'error', detail: failed.detail };
  if (!result) return undefined;
  const detections = result.outputs[0].detections.detections.map((box) => ({ ...box, label: labels[box.class_id] }));
  return { frame_id: result.frame_id, outcome: 'result', detections };
}
