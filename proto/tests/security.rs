//! Security over real connections, with certificates made here: each refusal says what to check.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::net::SocketAddr;
use std::path::PathBuf;

use baton_proto::wire::decoder_client::DecoderClient;
use baton_proto::wire::decoder_server::{Decoder, DecoderServer};
use baton_proto::wire::{
    DecodeShardRequest, GetDecoderInfoRequest, GetDecoderInfoResponse, ShardEvent, WorkerInfo,
};
use baton_proto::{Connections, InvalidEndpoint, SecurityArgs, SecurityError, ServerSecurity, server};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status, Streaming};

/// A directory of certificates and keys.
struct Files {
    directory: TempDir,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Files {
    fn new() -> Self {
        Files { directory: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn authority(&self, name: &str, authority: &Authority) -> PathBuf {
        self.write(&format!("{name}-ca.crt"), &authority.pem())
    }

    /// A certificate for `host` and its key, signed by `authority`.
    fn identity(&self, name: &str, host: &str, authority: &Authority) -> (PathBuf, PathBuf) {
        self.identity_of(name, CertificateParams::new([host.to_owned()]).unwrap(), authority)
    }

    fn identity_of(
        &self,
        name: &str,
        mut params: CertificateParams,
        authority: &Authority,
    ) -> (PathBuf, PathBuf) {
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        let certificate = self.write(&format!("{name}.crt"), &certificate.pem());
        (certificate, self.write(&format!("{name}.key"), &key.serialize_pem()))
    }

    /// Flags of a server that is `localhost`.
    fn server(&self, authority: &Authority) -> SecurityArgs {
        self.args_of(self.identity("server", "localhost", authority))
    }

    fn args_of(&self, (certificate, key): (PathBuf, PathBuf)) -> SecurityArgs {
        SecurityArgs { tls_cert: Some(certificate), tls_key: Some(key), ..SecurityArgs::default() }
    }
}

struct Service;

#[tonic::async_trait]
impl Decoder for Service {
    type DecodeShardStream = ReceiverStream<Result<ShardEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<GetDecoderInfoRequest>,
    ) -> Result<Response<GetDecoderInfoResponse>, Status> {
        let info = WorkerInfo { version: "here".to_owned(), ..WorkerInfo::default() };
        Ok(Response::new(GetDecoderInfoResponse { info: Some(info) }))
    }

    async fn decode_shard(
        &self,
        _: Request<Streaming<DecodeShardRequest>>,
    ) -> Result<Response<Self::DecodeShardStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// Serves with the given flags; gives the port.
async fn serve(args: &SecurityArgs) -> SocketAddr {
    let security = args.load().unwrap().server;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = server(&security).unwrap().add_service(service(security));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

type Checked<F> = InterceptedService<DecoderServer<Service>, F>;

fn service(security: ServerSecurity) -> Checked<impl tonic::service::Interceptor + Clone> {
    let check = move |request: Request<()>| security.check_token(request.metadata()).map(|()| request);
    InterceptedService::new(DecoderServer::new(Service), check)
}

/// Calls the service from a process with the given flags.
async fn call(args: &SecurityArgs, endpoint: &str) -> Result<(), Status> {
    let connections = Connections::new(args.load().unwrap().client);
    let mut client = DecoderClient::new(connections.to(endpoint).unwrap());
    client.get_info(GetDecoderInfoRequest {}).await.map(|response| {
        assert_eq!(response.into_inner().info.unwrap().version, "here");
    })
}

/// Calls, and checks that it is refused with a message that has all `pieces`.
async fn refused(args: &SecurityArgs, endpoint: &str, pieces: &[&str]) -> Status {
    let status = call(args, endpoint).await.unwrap_err();
    for piece in pieces {
        assert!(status.message().contains(piece), "`{piece}` is not in {status}");
    }
    status
}

fn https(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

#[tokio::test]
async fn a_client_that_trusts_the_servers_authority_is_served() {
    let (files, ours) = (Files::new(), authority("ours"));
    let address = serve(&files.server(&ours)).await;
    let args = SecurityArgs { tls_ca: Some(files.authority("ours", &ours)), ..SecurityArgs::default() };
    call(&args, &https(address)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_or_time_is_refused_by_the_client() {
    let (files, ours) = (Files::new(), authority("ours"));
    let address = serve(&files.server(&ours)).await;
    let stranger = files.authority("stranger", &authority("stranger"));
    let args = SecurityArgs { tls_ca: Some(stranger), ..SecurityArgs::default() };
    let status = refused(&args, &https(address), &["localhost", "UnknownIssuer", "--tls-ca"]).await;
    assert_eq!(status.code(), Code::Unavailable);

    let by_address = format!("https://127.0.0.1:{}", address.port());
    let args = SecurityArgs { tls_ca: Some(files.authority("ours", &ours)), ..SecurityArgs::default() };
    refused(&args, &by_address, &["127.0.0.1", "--tls-server-name"]).await;
    let named = SecurityArgs { tls_server_name: Some("localhost".to_owned()), ..args.clone() };
    call(&named, &by_address).await.unwrap();

    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2020, 1, 1);
    let expired = serve(&files.args_of(files.identity_of("expired", params, &ours))).await;
    refused(&args, &https(expired), &["renew the service's certificate"]).await;
}

#[tokio::test]
async fn mutual_tls_lets_in_only_clients_with_a_certificate_of_the_authority() {
    let (files, ours) = (Files::new(), authority("ours"));
    let ca = files.authority("ours", &ours);
    let address = serve(&SecurityArgs { tls_client_ca: Some(ca.clone()), ..files.server(&ours) }).await;
    let without = SecurityArgs { tls_ca: Some(ca.clone()), ..SecurityArgs::default() };
    refused(&without, &https(address), &["client certificate", "--tls-cert and --tls-key"]).await;

    let of_a_stranger = files.identity("stranger", "client", &authority("stranger"));
    let args = SecurityArgs { tls_ca: Some(ca.clone()), ..files.args_of(of_a_stranger) };
    refused(&args, &https(address), &["--tls-client-ca"]).await;

    let of_ours = files.identity("client", "client", &ours);
    let args = SecurityArgs { tls_ca: Some(ca), ..files.args_of(of_ours) };
    call(&args, &https(address)).await.unwrap();
}

#[tokio::test]
async fn a_plain_client_and_a_tls_server_do_not_understand_each_other_nor_the_reverse() {
    let (files, ours) = (Files::new(), authority("ours"));
    let address = serve(&files.server(&ours)).await;
    let plain = SecurityArgs::default();
    refused(&plain, &format!("http://{address}"), &["https://", "--tls-ca"]).await;

    let plain_address = serve(&plain).await;
    let args = SecurityArgs { tls_ca: Some(files.authority("ours", &ours)), ..SecurityArgs::default() };
    refused(&args, &https(plain_address), &["http://"]).await;
}

#[tokio::test]
async fn a_call_without_the_token_is_refused() {
    let files = Files::new();
    let with_token = |name: &str, token: &str| SecurityArgs {
        auth_token_file: Some(files.write(name, token)),
        ..SecurityArgs::default()
    };
    let server_args = with_token("server", "s3cret-of-the-cluster\n");
    let endpoint = format!("http://{}", serve(&server_args).await);
    let none = refused(&SecurityArgs::default(), &endpoint, &["requires", "--auth-token-file"]).await;
    let wrong = refused(&with_token("wrong", "guess"), &endpoint, &["not this service's"]).await;
    for status in [none, wrong] {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(!status.message().contains("s3cret"));
    }
    call(&with_token("client", "s3cret-of-the-cluster"), &endpoint).await.unwrap();
    let shown = format!("{:?}", server_args.load().unwrap());
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn endpoints_that_contradict_the_flags_are_refused_before_anybody_is_called() {
    let (files, ours) = (Files::new(), authority("ours"));
    let args = SecurityArgs { tls_ca: Some(files.authority("ours", &ours)), ..SecurityArgs::default() };
    let (plain, secure) = (Connections::default(), Connections::new(args.load().unwrap().client));
    assert_eq!((plain.scheme(), secure.scheme()), ("http", "https"));
    assert!(matches!(plain.to("https://host:1"), Err(InvalidEndpoint::NoAuthority { .. })));
    assert!(matches!(secure.to("http://host:1"), Err(InvalidEndpoint::NotEncrypted { .. })));
    assert!(matches!(plain.to("host:1"), Err(InvalidEndpoint::Scheme { .. })));
    assert!(matches!(plain.to("http://"), Err(InvalidEndpoint::Syntax { .. })));
    assert!(matches!(plain.to("local:decoder"), Err(InvalidEndpoint::UnknownLocal { .. })));
    secure.to("unix:/run/baton/decoder.sock").unwrap();
}

#[tokio::test]
async fn a_service_of_the_same_process_needs_no_tls() {
    let connections = Connections::default();
    let incoming = connections.listen_locally("decoder");
    let security = ServerSecurity::default();
    let router = server(&security).unwrap().add_service(service(security));
    let serving = tokio::spawn(router.serve_with_incoming(incoming));
    let mut client = DecoderClient::new(connections.clone().to("local:decoder").unwrap());
    client.get_info(GetDecoderInfoRequest {}).await.unwrap();

    serving.abort();
    let _ = serving.await;
    let other = Connections::default();
    drop(other.listen_locally("decoder"));
    let mut client = DecoderClient::new(other.to("local:decoder").unwrap());
    let status = client.get_info(GetDecoderInfoRequest {}).await.unwrap_err();
    assert!(status.message().contains("has ended"), "{status}");
}

#[test]
fn files_that_are_absent_or_something_else_are_named_with_their_flags() {
    let (files, ours) = (Files::new(), authority("ours"));
    let right = files.server(&ours);
    let garbage = files.write("garbage", "not PEM");
    let other_key = files.identity("other", "localhost", &ours).1;
    let cases = [
        (SecurityArgs { tls_ca: Some("absent".into()), ..SecurityArgs::default() }, ["absent", "--tls-ca"]),
        (
            SecurityArgs { tls_ca: Some(garbage.clone()), ..SecurityArgs::default() },
            ["certificate", "--tls-ca"],
        ),
        (SecurityArgs { tls_cert: Some(garbage.clone()), ..right.clone() }, ["certificate", "--tls-cert"]),
        (SecurityArgs { tls_key: Some(garbage.clone()), ..right.clone() }, ["private key", "--tls-key"]),
        (SecurityArgs { tls_key: Some(other_key), ..right.clone() }, ["belong together", "--tls-key"]),
        (SecurityArgs { tls_client_ca: Some(garbage.clone()), ..right }, ["certificate", "--tls-client-ca"]),
        (
            SecurityArgs { auth_token_file: Some(garbage), ..SecurityArgs::default() },
            ["token", "--auth-token-file"],
        ),
    ];
    for (args, pieces) in cases {
        let error: SecurityError = args.load().unwrap_err();
        for piece in pieces {
            assert!(error.to_string().contains(piece), "`{piece}` is not in: {error}");
        }
    }
}
