"""Sees a caller's trace and a server's metrics arrive where operators look for them: at an OTLP receiver and in Prometheus.

    pip install -r requirements.txt
    DATABASE_URL=postgresql://… python telemetry.py ../../../target/debug/rapport

Needs `prometheus` in the path. A server is started on a database that `rapport migrate` has prepared. The caller names a span
of its own as the parent (W3C); the call's span has to arrive below it, and the span of the batch that recorded has to link
it.
"""

import json
import pathlib
import secrets
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from concurrent import futures

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from harness import Server, act, channel_to, free_address, methods, until

CALL_COUNT = 'rpc_server_call_duration_seconds_count{rpc_method="rapport.v1.RelationshipService/RecordInteraction"}'


class Receiver(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps the spans, and the names of the metrics, that are sent to it."""

    def __init__(self):
        self.spans, self.metrics, self.resources = [], set(), set()

    def Export(self, request, context):
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                self.resources |= {(each.key, each.value.string_value) for each in resource.resource.attributes}
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        self.metrics |= {metric.name for resource in request.resource_metrics for scope in resource.scope_metrics
                         for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def below(self, trace, parent):
        return next((span for span in self.spans if (span.trace_id, span.parent_span_id) == (trace, parent)), None)

    def linking(self, span):
        return next((other for other in self.spans for link in other.links if link.span_id == span.span_id), None)


def prometheus(folder, metrics_url):
    """A Prometheus that scrapes a server every second, and where it answers."""
    address, target = free_address(), urllib.parse.urlsplit(metrics_url)
    config = {"global": {"scrape_interval": "1s"},
              "scrape_configs": [{"job_name": "rapport", "metrics_path": target.path,
                                  "static_configs": [{"targets": [target.netloc]}]}]}
    path = pathlib.Path(folder) / "prometheus.yml"
    path.write_text(json.dumps(config))
    command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), address


def value_of(address, query):
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": query})) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:
        return 0
    return sum(float(each["value"][1]) for each in result)


def arrive(server, receiver, prometheus_address):
    trace, parent = secrets.token_bytes(16), secrets.token_bytes(8)
    with channel_to(server.address) as channel:
        record, = methods(channel, f"telemetry-{secrets.token_hex(8)}", "RecordInteraction")
        record.metadata.append(("traceparent", f"00-{trace.hex()}-{parent.hex()}-01"))
        record(interaction=act("seen", "bob"))
    span = until("the call's span arrives below the caller's", lambda: receiver.below(trace, parent))
    until("the batch that recorded links the call", lambda: receiver.linking(span))
    if ("service.name", "rapport-seen") not in receiver.resources:
        sys.exit(f"spans are of another service: {receiver.resources}")
    until("metrics arrive", lambda: {"rpc.server.call.duration", "rapport.writer.batch.size"} <= receiver.metrics)
    print(f"the span {span.name!r} arrived below the caller's, with its batch and {len(receiver.metrics)} metrics")
    until("Prometheus has counted the call", lambda: value_of(prometheus_address, CALL_COUNT) >= 1)
    print("Prometheus has counted the call")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: telemetry.py PROGRAM")
    receiver, collector = Receiver(), grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, collector)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(receiver, collector)
    port = collector.add_insecure_port("127.0.0.1:0")
    collector.start()
    server = Server(sys.argv[1], arguments=["--metrics-listen", "127.0.0.1:0"], OTEL_SERVICE_NAME="rapport-seen",
                    OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", OTEL_METRIC_EXPORT_INTERVAL="1000",
                    OTEL_BSP_SCHEDULE_DELAY="500")
    scraper = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            scraper, address = prometheus(folder, server.metrics_url)
            arrive(server, receiver, address)
        finally:
            server.process.kill()
            if scraper:
                scraper.kill()
                scraper.wait()
            collector.stop(None)


if __name__ == "__main__":
    main()
