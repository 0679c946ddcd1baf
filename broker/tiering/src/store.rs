//! Which store a URL names, and how an object is put there without ever replacing one.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::conditional::CreateOnlyConnector;
use crate::error::TierError;
use crate::options::TierOptions;

/// Where the tier's objects go: `file:///path`, `s3://bucket/prefix`, or `memory://` for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    File(PathBuf),
    S3 { bucket: String, prefix: String },
    Memory,
}

impl StoreUrl {
    /// Reads a URL. Options and credentials are not part of it: S3 takes them from the environment.
    pub fn parse(url: &str) -> Result<Self, TierError> {
        let refuse =
            |reason: &str| Err(TierError::InvalidUrl { url: url.to_owned(), reason: reason.to_owned() });
        if url == "memory:" || url == "memory://" || url == "memory:///" {
            return Ok(StoreUrl::Memory);
        }
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return refuse("a file URL needs three slashes and an absolute path");
            }
            return Ok(StoreUrl::File(PathBuf::from(path)));
        }
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() || bucket.contains(['?', '#', '@', ':']) {
                return refuse("it names no bucket");
            }
            if prefix.contains(['?', '#']) {
                return refuse(
                    "it takes no options; set AWS_REGION, AWS_ENDPOINT_URL and the like in the environment",
                );
            }
            return Ok(StoreUrl::S3 {
                bucket: bucket.to_owned(),
                prefix: prefix.trim_matches('/').to_owned(),
            });
        }
        refuse("its scheme is unknown")
    }
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreUrl::File(path) => write!(f, "file://{}", path.display()),
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            StoreUrl::Memory => write!(f, "memory://"),
        }
    }
}

/// What a store takes from outside its URL: the `AWS_*` variables, by name.
#[derive(Clone, Default)]
pub struct StoreVariables(BTreeMap<String, String>);

impl StoreVariables {
    /// Those of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "only a process of its own calls this: others hand in what they like"
    )]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        variables.collect()
    }

    fn is_true(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

impl FromIterator<(String, String)> for StoreVariables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")).collect())
    }
}

/// The values may be secrets.
impl std::fmt::Debug for StoreVariables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How a large upload gets its final name.
#[derive(Clone)]
pub enum LargeUpload {
    /// In numbered parts straight to the final name; the store refuses to complete it if that exists (S3).
    Conditional(Arc<dyn MultipartStore>),
    /// In numbered parts to a staged name, then a copy that refuses to replace.
    StagedParts(Arc<dyn MultipartStore>),
    /// In one stream to a staged name, then a link that refuses to replace (a local directory).
    StagedStream,
}

impl std::fmt::Debug for LargeUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LargeUpload::Conditional(_) => "Conditional",
            LargeUpload::StagedParts(_) => "StagedParts",
            LargeUpload::StagedStream => "StagedStream",
        })
    }
}

/// A store, opened: the seam at which tests put faults.
#[derive(Debug, Clone)]
pub struct Store {
    pub objects: Arc<dyn ObjectStore>,
    pub large_upload: LargeUpload,
    /// What comes before the cluster's id in every key.
    pub prefix: Path,
    /// The directory, if it is one: a stream that was cut off leaves a file there which no listing shows.
    pub directory: Option<PathBuf>,
}

impl Store {
    /// Opens what `url` names. Makes the directory of a file URL; sends nothing to S3 yet.
    pub fn open(
        url: &StoreUrl,
        variables: &StoreVariables,
        options: &TierOptions,
    ) -> Result<Self, TierError> {
        match url {
            StoreUrl::Memory => Ok(Self::memory()),
            StoreUrl::File(path) => Self::directory(path),
            StoreUrl::S3 { bucket, prefix } => Self::s3(url, (bucket, prefix), variables, options),
        }
    }

    /// The path of a folder or key that is written with slashes, below the prefix.
    pub(crate) fn below_prefix(&self, key: &str) -> Path {
        key.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// A store that lives as long as this value and its clones.
    pub fn memory() -> Self {
        let memory = Arc::new(InMemory::new());
        Self {
            objects: memory.clone(),
            large_upload: LargeUpload::StagedParts(memory),
            prefix: Path::default(),
            directory: None,
        }
    }

    /// A local directory. Every object is synced before it counts as written: it may become the only copy.
    #[expect(
        clippy::disallowed_methods,
        reason = "a store that is a directory is the machine's own, as all that object_store does with it"
    )]
    pub fn directory(path: &FilePath) -> Result<Self, TierError> {
        let refuse =
            |reason: String| TierError::InvalidUrl { url: format!("file://{}", path.display()), reason };
        std::fs::create_dir_all(path).map_err(|error| refuse(error.to_string()))?;
        let local = LocalFileSystem::new_with_prefix(path).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            objects: Arc::new(local.with_fsync(true)),
            large_upload: LargeUpload::StagedStream,
            prefix: Path::default(),
            directory: Some(path.to_owned()),
        })
    }

    /// Credentials, region and endpoint come from `AWS_*` variables, else from the instance or web identity, as
    /// object_store finds them. Retries and deadlines are ours, so the client's own are off; the store checks each
    /// body against the checksum sent with it.
    fn s3(
        url: &StoreUrl,
        (bucket, prefix): (&str, &str),
        variables: &StoreVariables,
        options: &TierOptions,
    ) -> Result<Self, TierError> {
        let refuse = |reason: String| TierError::InvalidUrl { url: url.to_string(), reason };
        let no_retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let allow_http = variables.is_true("AWS_ALLOW_HTTP");
        let client = ClientOptions::new()
            .with_allow_http(allow_http)
            .with_timeout(options.attempt_timeout)
            .with_connect_timeout(options.attempt_timeout.min(std::time::Duration::from_secs(5)));
        let mut s3 = AmazonS3Builder::new();
        for (name, value) in &variables.0 {
            // What is not known here is for other programs.
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                s3 = s3.with_config(key, value);
            }
        }
        let endpoint = s3.get_config_value(&AmazonS3ConfigKey::Endpoint);
        if !allow_http && endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            return Err(TierError::Unencrypted { url: url.to_string() });
        }
        let s3 = s3
            .with_bucket_name(bucket)
            .with_client_options(client)
            .with_retry(no_retry)
            .with_checksum_algorithm(Checksum::CRC64NVME)
            .with_http_connector(CreateOnlyConnector::default())
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        let s3 = Arc::new(s3);
        Ok(Self {
            objects: s3.clone(),
            large_upload: LargeUpload::Conditional(s3),
            prefix: Path::parse(prefix).map_err(|error| refuse(error.to_string()))?,
            directory: None,
        })
    }
}
