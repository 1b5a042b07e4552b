//! A data folder: one process at a time, one format.
//!
//! ```text
//! <data>/LOCK    held by the process that serves the folder, its pid inside
//! <data>/FORMAT  version of everything in the folder, as a decimal number
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::service::draw_number;

/// The format of data folders that this program reads and writes, a broker's and a registry's.
pub const FORMAT_VERSION: u32 = 1;

/// Why a data folder cannot be served. One line for the operator.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process serves it.
    #[error("data folder {} is in use by process {pid}", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other process, or `?`.
        pid: String,
    },
    /// It was written by a newer program; it was not touched.
    #[error(
        "data folder {} has format version {found}, this program knows version {FORMAT_VERSION}: \
         not touched",
        folder.display()
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// What its FORMAT file says.
        found: String,
    },
    /// A file in it does not say what it should.
    #[error("{} does not hold a number: `{found}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// It belongs to another program.
    #[error("data folder {} is a {owner}'s, not a {wanted}'s: not touched", folder.display())]
    Another {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        owner: &'static str,
        /// Who wants it.
        wanted: &'static str,
    },
    /// The system refused something.
    #[error("data folder: {}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A data folder held by this process, until this is dropped.
#[derive(Debug)]
pub struct LockedFolder {
    path: PathBuf,
    _lock: File,
}

impl LockedFolder {
    /// Takes the folder for this process, and makes it if it is not there.
    ///
    /// # Errors
    /// [`FolderError`]; a folder of another process or of a newer format is left untouched.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        check_format(path)?;
        fs::create_dir_all(path).map_err(at(path))?;
        let canonical = fs::canonicalize(path).map_err(at(path))?;
        let lock = take_lock(&canonical)?;
        check_format(&canonical)?; // whoever had the lock before may have written it
        let format = canonical.join("FORMAT");
        if !format.exists() {
            write_durably(&format, format!("{FORMAT_VERSION}\n").as_bytes())
                .map_err(at(&format))?;
        }
        Ok(Self { path: canonical, _lock: lock })
    }

    /// The folder, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The system refused something about `path`.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError + use<> {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

fn check_format(folder: &Path) -> Result<(), FolderError> {
    let path = folder.join("FORMAT");
    let found = match fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FolderError::Io { path, source }),
    };
    match found.parse::<u32>() {
        Ok(version) if version <= FORMAT_VERSION => Ok(()),
        _ => Err(FolderError::Newer { folder: folder.to_owned(), found }),
    }
}

fn take_lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join("LOCK");
    let failed = |source| FolderError::Io { path: path.clone(), source };
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "?" } else { pid.trim() }.to_owned();
            return Err(FolderError::InUse { folder: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let pid = std::process::id();
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    file.write_all(format!("{pid}\n").as_bytes()).map_err(failed)?;
    Ok(file)
}

/// The number in a small file, which is drawn and written there when it is not.
///
/// # Errors
/// [`FolderError::Unreadable`] or [`FolderError::Io`].
pub fn number_in(path: &Path) -> Result<u64, FolderError> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| FolderError::Unreadable {
            path: path.to_owned(),
            found: text.trim().to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let number = draw_number();
            write_durably(path, format!("{number}\n").as_bytes()).map_err(at(path))?;
            Ok(number)
        }
        Err(source) => Err(at(path)(source)),
    }
}

/// Writes a small file so that after a crash it is there in full or not at all.
///
/// # Errors
/// What the system said.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
