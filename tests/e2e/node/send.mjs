// Sends one trace of two spans with the official exporter for the given transport and prints its id.
// Usage: node send.mjs http-json|http-protobuf|grpc URL SERVICE
import { context, trace } from "@opentelemetry/api";
import { OTLPTraceExporter as GrpcExporter } from "@opentelemetry/exporter-trace-otlp-grpc";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as ProtobufExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import * as sdk from "@opentelemetry/sdk-trace";

const [transport, url, service] = process.argv.slice(2);
const exporters = { "http-json": JsonExporter, "http-protobuf": ProtobufExporter, grpc: GrpcExporter };
const exporter = new exporters[transport]({ url });

const failures = [];
const processor = new sdk.BatchSpanProcessor({
  exporter: {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        if (result.error) failures.push(String(result.error));
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush(),
  },
});
const provider = new sdk.TracerProvider({
  resource: resourceFromAttributes({ "service.name": service }),
  spanProcessors: [processor],
});
const tracer = provider.getTracer("node-client");
const parent = tracer.startSpan("checkout", { attributes: { "http.route": "/cart/{id}", items: 3, ratio: 0.5, vip: true, tags: ["a", "b"] } });
const child = tracer.startSpan("charge", {}, trace.setSpan(context.active(), parent));
child.addEvent("card accepted", { brand: "visa" });
child.end();
parent.end();
await provider.forceFlush();
await provider.shutdown();
if (failures.length) {
  console.error(failures.join("\n"));
  process.exit(1);
}
console.log(parent.spanContext().traceId);
