//! Where telemetry is sent: the standard variables of OpenTelemetry, as far as they are read here.

use crate::telemetry::{Export, Sampling};

use super::{Reader, Setting, settings as on};

/// Where telemetry is sent, by the standard variables of OpenTelemetry. Those about the way there (headers, timeout,
/// compression, intervals) are read by its exporter.
pub(super) fn export(reader: &mut Reader<'_>) -> Export {
    let is_disabled = reader.switch(&on::SDK_DISABLED);
    reader.read(&on::OTLP_PROTOCOL, |text| (text == "grpc").then_some(()));
    let endpoint = |text: &str| {
        let is_sound = text.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        is_sound.then(|| text.to_owned())
    };
    let shared = reader.read(&on::OTLP_ENDPOINT, endpoint);
    let mut of = |exporter: &Setting, own: &Setting| {
        let is_on = reader.read(exporter, |text| match text {
            "otlp" => Some(true),
            "none" => Some(false),
            _ => None,
        });
        reader.read(own, endpoint).or_else(|| shared.clone()).filter(|_| is_on == Some(true) && !is_disabled)
    };
    let traces = of(&on::TRACES_EXPORTER, &on::OTLP_TRACES_ENDPOINT);
    let metrics = of(&on::METRICS_EXPORTER, &on::OTLP_METRICS_ENDPOINT);
    Export { traces, metrics, sampling: sampling(reader), attributes: attributes(reader) }
}

fn sampling(reader: &mut Reader<'_>) -> Sampling {
    let share = |text: &str| text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    let share = reader.read(&on::TRACES_SAMPLER_ARG, share).unwrap_or(1.0);
    let sampling = reader.read(&on::TRACES_SAMPLER, |text| {
        let (by_parent, name) = text.strip_prefix("parentbased_").map_or((false, text), |name| (true, name));
        let ratio = match name {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => share,
            _ => return None,
        };
        Some(Sampling { by_parent, ratio })
    });
    sampling.unwrap_or_default()
}

/// What is said of this server: the later of two that have one name holds.
fn attributes(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let pairs = |text: &str| {
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.trim().into(), value.trim().into()));
        text.split_terminator(',').map(pair).collect::<Option<Vec<_>>>()
    };
    let mut attributes = reader.read(&on::RESOURCE_ATTRIBUTES, pairs).unwrap_or_default();
    attributes.extend(reader.text(&on::SERVICE_NAME).map(|name| ("service.name".to_owned(), name)));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, Flags};

    fn of(given: &[(&str, &str)]) -> Result<Export, ConfigError> {
        let environment = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let mut reader = Reader::without_file(Flags::default(), &environment);
        let export = export(&mut reader);
        reader.finish(Some(export))
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
