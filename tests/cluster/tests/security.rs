//! Services that require certificates and a token serve callers that have both, and nobody else.

use baton_cluster_tests::Worker;
use baton_proto::wire::GetDecoderInfoRequest;
use baton_proto::wire::decoder_client::DecoderClient;
use baton_proto::{Connections, SecurityArgs};
use tonic::{Code, Status};

use crate::bundle::shared_bundle;
use crate::certificates::Certificates;

async fn ask(security: &SecurityArgs, endpoint: &str) -> Result<(), Status> {
    let connections = Connections::new(security.load().unwrap().client);
    let mut decoder = DecoderClient::new(connections.to(endpoint).unwrap());
    decoder.get_info(GetDecoderInfoRequest {}).await.map(|_| ())
}

#[tokio::test]
async fn only_a_client_with_certificate_and_token_is_served() {
    let certificates = Certificates::new();
    let flags = certificates.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let decoder = Worker::start("baton-decoder", shared_bundle(), &flags);
    let complete = SecurityArgs {
        tls_cert: Some(certificates.path("tls.crt")),
        tls_key: Some(certificates.path("tls.key")),
        tls_ca: Some(certificates.path("ca.crt")),
        auth_token_file: Some(certificates.path("token")),
        ..SecurityArgs::default()
    };
    ask(&complete, &decoder.tls_endpoint()).await.unwrap();

    let no_certificate = SecurityArgs { tls_cert: None, tls_key: None, ..complete.clone() };
    let no_token = SecurityArgs { auth_token_file: None, ..complete };
    let plain = SecurityArgs::default();
    for (security, endpoint, code, hint) in [
        (no_certificate, decoder.tls_endpoint(), Code::Unavailable, "--tls-cert"),
        (no_token, decoder.tls_endpoint(), Code::Unauthenticated, "--auth-token-file"),
        (plain, decoder.endpoint(), Code::Unavailable, "https://"),
    ] {
        let status = ask(&security, &endpoint).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(hint), "{status}");
    }
    let log = decoder.process.log().join("\n");
    assert!(!log.contains("a-token-of-tests"), "{log}");
}
