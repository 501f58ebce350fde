//! The node's key and id, kept in its state directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rand::TryRngCore;
use rand::rngs::OsRng;
use shared::claims::{PrivateJwk, SigningKey, TokenError};
use shared::ids::NodeId;

const KEY_FILE: &str = "node-key.json";
const ID_FILE: &str = "node-id";
/// Key id in node tokens' headers; the edge finds a node's key by the node's id.
const KEY_ID: &str = "node";
/// Longest file read, bytes.
const MAX_FILE_LEN: u64 = 4096;

/// Why the node has no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The key can be read by others.
    #[error("{path} can be read by other users: make it mode 600, or remove it for a new key")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The key file holds no key.
    #[error("{path} holds no Ed25519 key: remove it for a new one (the node must enrol again)")]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes, or the key cannot be made.
    #[error("cannot make a key")]
    NoKey,
}

/// The node's Ed25519 key.
pub(crate) struct NodeKey(SigningKey);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

impl NodeKey {
    /// Reads the key from `state_dir`, or makes one there (file mode 600).
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) fn load_or_create(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(KEY_FILE);
        match File::open(&path) {
            Ok(file) => Self::load(&path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(state_dir, &path),
            Err(error) => Err(IdentityError::File { path, error }),
        }
    }

    /// Signs node tokens.
    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.0
    }

    fn load(path: &Path, file: File) -> Result<Self, IdentityError> {
        let failed = |error| IdentityError::File { path: path.to_owned(), error };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned() });
        }
        let mut text = String::new();
        file.take(MAX_FILE_LEN).read_to_string(&mut text).map_err(failed)?;
        let key = SigningKey::from_jwk(&text).map_err(|_| IdentityError::BadKey { path: path.to_owned() })?;
        Ok(Self(key))
    }

    fn create(state_dir: &Path, path: &Path) -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        OsRng.try_fill_bytes(&mut seed).map_err(|_| IdentityError::NoKey)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| IdentityError::NoKey)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| IdentityError::NoKey)?;
        let jwk = PrivateJwk::new(KEY_ID.to_owned(), &seed, public);
        let key = SigningKey::try_from(&jwk).map_err(|_: TokenError| IdentityError::NoKey)?;
        let text = serde_json::to_string(&jwk).map_err(|_| IdentityError::NoKey)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|error| IdentityError::File { path: state_dir.to_owned(), error })?;
        write(path, &text).map_err(|error| IdentityError::File { path: path.to_owned(), error })?;
        Ok(Self(key))
    }
}

/// The id the edge gave this node's key, if it has enrolled.
///
/// # Errors
/// [`IdentityError::File`].
pub(crate) fn load_id(state_dir: &Path) -> Result<Option<NodeId>, IdentityError> {
    let path = state_dir.join(ID_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(NodeId::try_from(text.trim()).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IdentityError::File { path, error }),
    }
}

/// Keeps the id the edge gave.
///
/// # Errors
/// [`IdentityError::File`].
pub(crate) fn store_id(state_dir: &Path, node: &NodeId) -> Result<(), IdentityError> {
    let path = state_dir.join(ID_FILE);
    write(&path, node.as_str()).map_err(|error| IdentityError::File { path, error })
}

/// Writes a file as a whole or not at all, for this user only.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("meridian-identity-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_key_is_made_once_and_for_its_user_only() {
        let directory = Directory::new("key");
        let made = NodeKey::load_or_create(&directory.0).unwrap();
        let read = NodeKey::load_or_create(&directory.0).unwrap();
        assert_eq!(made.0.public_x(), read.0.public_x());
        let file = directory.0.join(KEY_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(NodeKey::load_or_create(&directory.0), Err(IdentityError::Exposed { .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "{}").unwrap();
        assert!(matches!(NodeKey::load_or_create(&directory.0), Err(IdentityError::BadKey { .. })));
    }

    #[test]
    fn the_id_is_kept() {
        let directory = Directory::new("id");
        NodeKey::load_or_create(&directory.0).unwrap();
        assert_eq!(load_id(&directory.0).unwrap(), None);
        let node = NodeId::try_from("ND_abc").unwrap();
        store_id(&directory.0, &node).unwrap();
        assert_eq!(load_id(&directory.0).unwrap(), Some(node));
    }
}
