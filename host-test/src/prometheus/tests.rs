//! What needs no process: configuration, query strings, answers.

use super::answer::{data, series};
use super::http1::query_string;
use super::process::{Options, config_yaml};
use std::time::Duration;

#[test]
fn the_configuration_promotes_what_the_plan_says() {
    let yaml = config_yaml(&Options {
        binary: "prometheus".into(),
        lookback: None,
        out_of_order_window: Duration::from_secs(1800),
        promote_resource_attributes: vec!["k8s.pod.name".into(), "a \"b\"".into()],
        has_remote_write: false,
        features: vec![],
    });
    assert!(yaml.contains(r#"  promote_resource_attributes: ["k8s.pod.name","a \"b\""]"#), "{yaml}");
    assert!(yaml.contains("out_of_order_time_window: 1800s"), "{yaml}");
}

#[test]
fn query_strings_keep_every_byte() {
    assert_eq!(
        query_string(&[("query", "sum by (a)(x{b=\"c+d\"})"), ("time", "1.000")]),
        "query=sum%20by%20%28a%29%28x%7Bb%3D%22c%2Bd%22%7D%29&time=1.000"
    );
}

#[test]
fn answers_come_in_order_of_their_labels() {
    let body = br#"{"status":"success","data":{"resultType":"matrix","result":[
        {"metric":{"a":"2"},"values":[[1.5,"3"],[2,"+Inf"]]},{"metric":{"a":"1"},"values":[[1,"NaN"]]}]}}"#;
    let found = series(&data(body).unwrap()).unwrap();
    assert_eq!(found.iter().map(|s| s.labels["a"].as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert!(found[0].points[0].1.is_nan());
    assert_eq!(found[1].points, [(1500, 3.0), (2000, f64::INFINITY)]);
    assert_eq!((found[1].at(1500), found[1].at(1501)), (Some(3.0), None));
    let vector =
        br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[7,"1e3"]}]}}"#;
    assert_eq!(series(&data(vector).unwrap()).unwrap()[0].points, [(7000, 1000.0)]);
}

#[test]
fn an_error_is_told_in_prometheus_words() {
    let body = br#"{"status":"error","errorType":"bad_data","error":"parse error: unexpected end of input"}"#;
    assert!(data(body).unwrap_err().to_string().contains("unexpected end of input"));
    assert!(data(b"<html>").is_err());
    assert!(series(&serde_json::json!({"resultType": "scalar", "result": [0, "1"]})).is_err());
}
