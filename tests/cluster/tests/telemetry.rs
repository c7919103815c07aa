//! Spans and metrics of a cluster, as a collector of OpenTelemetry gets them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use baton_cluster_tests::Worker;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::bundle::shared_bundle;
use crate::jobs::{Job, NUM_RECORDS, SECRET_WORD};

const NUM_SHARDS: usize = NUM_RECORDS / 8;

/// A collector that keeps all it gets.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    /// The last value by service and metric: of a histogram the number of its values.
    metrics: Arc<Mutex<HashMap<(String, String), f64>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let service = service_name(of_resource.resource.as_ref());
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_metrics {
            let service = service_name(of_resource.resource.as_ref());
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                let number = |value: &Option<number_data_point::Value>| match value {
                    Some(number_data_point::Value::AsDouble(value)) => *value,
                    Some(number_data_point::Value::AsInt(value)) => *value as f64,
                    None => 0.0,
                };
                let value = match metric.data {
                    Some(Data::Gauge(gauge)) => {
                        gauge.data_points.iter().map(|point| number(&point.value)).sum()
                    }
                    Some(Data::Sum(sum)) => sum.data_points.iter().map(|point| number(&point.value)).sum(),
                    Some(Data::Histogram(histogram)) => {
                        histogram.data_points.iter().map(|point| point.count as f64).sum()
                    }
                    _ => f64::NAN,
                };
                self.metrics.lock().unwrap().insert((service.clone(), metric.name), value);
            }
        }
        Ok(Response::new(Default::default()))
    }
}

impl Collector {
    /// Serves on a free port, as long as the runtime lives.
    fn serve(&self, runtime: &Runtime) -> SocketAddr {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    fn metric(&self, service: &str, name: &str) -> Option<f64> {
        self.metrics.lock().unwrap().get(&(service.to_owned(), name.to_owned())).copied()
    }
}

fn service_name(resource: Option<&Resource>) -> String {
    let attribute = resource.unwrap().attributes.iter().find(|attribute| attribute.key == "service.name");
    match attribute.unwrap().value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(name) => name.clone(),
        other => panic!("{other:?} is no name"),
    }
}

fn start(name: &str, flags: &[&str]) -> Worker {
    Worker::start(name, shared_bundle(), flags)
}

#[test]
fn a_collector_sees_one_tree_of_spans_from_the_job_to_each_commit_and_the_metrics() {
    let runtime = Runtime::new().unwrap();
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.serve(&runtime));
    let flags = ["--otlp-endpoint", endpoint.as_str()];

    let job = Job::new();
    let reference = job.run_in_one_process();
    let (encoder, decoder) = (start("baton-encoder", &flags), start("baton-decoder", &flags));
    let ended = job.coordinate("cluster", &[encoder.endpoint()], &[decoder.endpoint()], &flags).wait();
    job.check("cluster", &ended, &reference);
    for worker in [encoder, decoder] {
        worker.process.signal("TERM"); // what waits is sent before a process ends
        assert_eq!(worker.process.wait().code, Some(0));
    }

    let spans = collector.spans.lock().unwrap();
    let by_id: HashMap<&[u8], &(String, Span)> =
        spans.iter().map(|span| (span.1.span_id.as_slice(), span)).collect();
    let path_to = |span: &(String, Span)| {
        let mut path = Vec::new();
        let mut place = Some(span);
        while let Some((service, span)) = place {
            path.push(format!("{service}/{}", span.name));
            place = by_id.get(span.parent_span_id.as_slice()).copied();
        }
        path.reverse();
        path.join(" > ")
    };
    let paths: Vec<String> = spans.iter().filter(|(_, span)| span.name == "commit").map(path_to).collect();
    let expected = "baton-coordinator/job > baton-coordinator/shard > baton-encoder/process_shard > \
                    baton-decoder/process_shard > baton-decoder/commit";
    assert_eq!(paths, vec![expected; NUM_SHARDS]);
    assert!(spans.iter().all(|(_, span)| span.trace_id == spans[0].1.trace_id), "more than one trace");
    assert!(!format!("{spans:?}").contains(SECRET_WORD), "record text in a span");

    assert_eq!(collector.metric("baton-decoder", "baton_commit_seconds"), Some(NUM_SHARDS as f64));
    assert_eq!(
        collector.metric("baton-coordinator", "baton_coordinator_records_total"),
        Some(NUM_RECORDS as f64)
    );
    assert!(collector.metric("baton-encoder", "baton_encoder_prompt_tokens_total") > Some(0.0));
    assert!(collector.metric("baton-decoder", "process_resident_memory_bytes") > Some(0.0));
}

#[test]
fn a_collector_that_does_not_answer_changes_no_byte_and_no_exit_code() {
    let job = Job::new();
    let reference = job.run_in_one_process();
    let nobody = ["--otlp-endpoint", "http://127.0.0.1:1"];
    let (encoder, decoder) = (start("baton-encoder", &nobody), start("baton-decoder", &nobody));
    let ended = job.coordinate("cluster", &[encoder.endpoint()], &[decoder.endpoint()], &nobody).wait();
    job.check("cluster", &ended, &reference);
}
