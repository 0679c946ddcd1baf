//! Makes the end of a multipart upload to S3 create-only.
//!
//! S3 takes `If-None-Match: *` with CompleteMultipartUpload and answers 412 if the key exists. object_store asks for
//! it only in its own server-side copies; this connector adds the header to every such request. It need not be
//! signed: Signature Version 4 covers the host and `x-amz-*` headers, others are the sender's choice.

use async_trait::async_trait;
use http::header::{HeaderValue, IF_NONE_MATCH};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

#[derive(Debug, Default)]
pub(crate) struct CreateOnlyConnector(ReqwestConnector);

impl HttpConnector for CreateOnlyConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(CreateOnlyService(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct CreateOnlyService(HttpClient);

#[async_trait]
impl HttpService for CreateOnlyService {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if completes_multipart(request.method().as_str(), request.uri().query().unwrap_or_default()) {
            request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        self.0.execute(request).await
    }
}

fn completes_multipart(method: &str, query: &str) -> bool {
    method == "POST" && query.split('&').any(|pair| pair.starts_with("uploadId="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_completing_request_is_conditional() {
        assert!(completes_multipart("POST", "uploadId=abc"));
        assert!(!completes_multipart("POST", "uploads"));
        assert!(!completes_multipart("PUT", "partNumber=1&uploadId=abc"));
        assert!(!completes_multipart("DELETE", "uploadId=abc"));
    }
}
