// A client by @grpc/grpc-js: exports, a cancelled call, a deadline, refusals, health and its watch.
// Usage: node grpc_js_client.cjs NODE_MODULES TARGET PAYLOAD_HEX; prints one line of JSON a step.
const path = require("node:path");
const [, , modules, target, payloadHex] = process.argv;
const grpc = require(path.join(modules, "@grpc/grpc-js"));
const EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HEALTH = "/grpc.health.v1.Health/";
const same = (bytes) => bytes;
const payload = Buffer.from(payloadHex, "hex");
const client = new grpc.Client(target, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": -1,
});

function unary(method, message, { metadata = new grpc.Metadata(), ...options } = {}) {
  return new Promise((done) => {
    const call = client.makeUnaryRequest(method, same, same, message, metadata, options, (error, answer) =>
      done(error ? { code: error.code, message: error.details } : { code: 0, size: answer.length }),
    );
    if (options.cancelled) setTimeout(() => call.cancel(), 50);
  });
}

function watch() {
  return new Promise((done) => {
    const call = client.makeServerStreamRequest(
      HEALTH + "Watch", same, same, Buffer.alloc(0), new grpc.Metadata(), {});
    call.on("data", (data) => {
      done({ status: data.toString("hex") });
      call.cancel();
    });
    call.on("error", () => {});
  });
}

async function main() {
  const say = (step, told) => console.log(JSON.stringify([step, told]));
  say("export", await unary(EXPORT, payload));
  const many = await Promise.all(Array.from({ length: 300 }, () => unary(EXPORT, payload)));
  say("many", many.every((told) => told.code === 0));
  const gzip = new grpc.Metadata();
  gzip.set("grpc-internal-encoding-request", "gzip");
  say("gzip", await unary(EXPORT, payload, { metadata: gzip }));
  say("large", await unary(EXPORT, Buffer.concat(Array.from({ length: 8000 }, () => payload))));
  say("too large", await unary(EXPORT, Buffer.alloc(6 << 20)));
  say("bad", await unary(EXPORT, Buffer.from([255, 255])));
  say("unknown", await unary("/foo.Bar/Baz", payload));
  say("health", await unary(HEALTH + "Check", Buffer.alloc(0)));
  say("watch", await watch());
  client.close();
}

main();
