//! Where telemetry is sent: the standard variables of OpenTelemetry, as far as they are read here.

use crate::telemetry::{Export, Sampling};

use super::{ConfigError, Environment, Reader};

/// Where the spans of this process are sent, or every bad setting.
pub fn read_export(environment: Environment<'_>) -> Result<Export, ConfigError> {
    let mut reader = Reader { environment, faults: Vec::new() };
    let export = export(&mut reader);
    reader.finish(export)
}

/// Where telemetry is sent, by the standard variables of OpenTelemetry. Those about the way there (headers, timeout,
/// compression, intervals) are read by its exporter.
pub(super) fn export(reader: &mut Reader<'_>) -> Export {
    let is_disabled = reader.read("OTEL_SDK_DISABLED", None, false, "true or false", |text| text.parse().ok());
    reader.read("OTEL_EXPORTER_OTLP_PROTOCOL", None, (), "grpc", |text| (text == "grpc").then_some(()));
    let endpoint = |text: &str| {
        let is_sound = text.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        is_sound.then(|| Some(text.to_owned()))
    };
    let expected = "an address such as http://127.0.0.1:4317";
    let shared = reader.read("OTEL_EXPORTER_OTLP_ENDPOINT", None, None, expected, endpoint);
    let mut of = |exporter: &str, variable: &str| {
        let is_on = reader.read(exporter, None, true, "otlp or none", |text| match text {
            "otlp" => Some(true),
            "none" => Some(false),
            _ => None,
        });
        reader.read(variable, None, shared.clone(), expected, endpoint).filter(|_| is_on && !is_disabled)
    };
    let traces = of("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let metrics = of("OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
    Export { traces, metrics, sampling: sampling(reader), attributes: attributes(reader) }
}

fn sampling(reader: &mut Reader<'_>) -> Sampling {
    let share = |text: &str| text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    let share = reader.read("OTEL_TRACES_SAMPLER_ARG", None, 1.0, "a number from 0 to 1", share);
    let expected = "always_on, always_off or traceidratio, with or without parentbased_ before it";
    reader.read("OTEL_TRACES_SAMPLER", None, Sampling::default(), expected, |text| {
        let (by_parent, name) = text.strip_prefix("parentbased_").map_or((false, text), |name| (true, name));
        let ratio = match name {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => share,
            _ => return None,
        };
        Some(Sampling { by_parent, ratio })
    })
}

/// What is said of this server: the later of two that have one name holds.
fn attributes(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let pairs = |text: &str| {
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.trim().into(), value.trim().into()));
        text.split_terminator(',').map(pair).collect::<Option<Vec<_>>>()
    };
    let expected = "pairs such as deployment.environment.name=staging,service.namespace=people";
    let mut attributes = reader.read("OTEL_RESOURCE_ATTRIBUTES", None, Vec::new(), expected, pairs);
    attributes.extend((reader.environment)("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name)));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&str, &str)]) -> Result<Export, ConfigError> {
        read_export(&|name| given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn telemetry_goes_where_the_standard_variables_say() {
        let off = of(&[("OTEL_SERVICE_NAME", "ours")]).unwrap();
        assert_eq!([off.traces, off.metrics], [None, None]);
        let shared = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        assert_eq!(of(&[shared, ("OTEL_SDK_DISABLED", "true")]).unwrap().traces, None);
        let export = of(&[
            shared,
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs, a = b"),
            ("OTEL_SERVICE_NAME", "ours"),
        ]);
        let export = export.unwrap();
        assert_eq!((export.traces.as_deref(), export.metrics), (Some(shared.1), None));
        assert_eq!(export.sampling, Sampling { by_parent: true, ratio: 0.25 });
        assert_eq!(export.attributes[1..], [("a".into(), "b".into()), ("service.name".into(), "ours".into())]);
        let bad = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_RESOURCE_ATTRIBUTES", "ours"),
        ]);
        assert_eq!(bad.unwrap_err().0.len(), 4);
    }
}
