//! The system's BLAS, found at run time: OpenBLAS, BLIS, MKL, ArmPL or Accelerate, or the one that `HERALD_BLAS` names.

use std::ffi::c_int;
use std::sync::OnceLock;

use herald_api::{Error, Status};

use super::trust;

/// The variable that names a library to use: a path, or a name for the system's loader.
const CHOICE: &str = "HERALD_BLAS";

/// Where a BLAS is looked for, in this order; the loader searches its usual folders for names without a path.
#[cfg(windows)]
const CANDIDATES: [&str; 4] = ["libopenblas.dll", "openblas.dll", "libblis.4.dll", "mkl_rt.2.dll"];

/// Where a BLAS is looked for, in this order; the loader searches its usual folders for names without a path.
#[cfg(not(windows))]
const CANDIDATES: [&str; 9] = [
    "libopenblas.so.0",
    "libopenblas.so",
    "libblis.so.4",
    "libblis.so",
    "libmkl_rt.so.2",
    "libmkl_rt.so",
    "libarmpl_lp64.so",
    "libopenblas.dylib",
    "/System/Library/Frameworks/Accelerate.framework/Accelerate",
];

/// CBLAS's numbers for the order of a matrix and for whether it is transposed.
const ROW_MAJOR: c_int = 101;
const AS_IS: c_int = 111;
const TRANSPOSED: c_int = 112;

/// `cblas_sgemm` with 32-bit integers: order, transpositions, sizes, alpha, A, B, beta, C.
type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);

/// How a panel of rows lies in memory.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// `[rows, columns]`.
    Rows,
    /// `[columns, rows]`.
    Columns,
}

/// A loaded BLAS.
pub(crate) struct Library {
    name: String,
    sgemm: Sgemm,
}

/// The library in use, looked for once; or why there is none. A machine without a BLAS is only unsuited; a library that somebody
/// named and that can't be used, or one that is there and can't be trusted, is something to tell them.
pub(crate) fn found() -> &'static Result<Library, Error> {
    static FOUND: OnceLock<Result<Library, Error>> = OnceLock::new();
    FOUND.get_or_init(|| {
        trust::check_limits().map_err(Error::unsupported)?;
        match std::env::var(CHOICE).ok().filter(|name| !name.is_empty()) {
            Some(name) => Library::open(&name).map_err(|reason| {
                Error::new(Status::NotFound, format!("{CHOICE} is {name:?}, which {reason}"))
            }),
            None => any_candidate(),
        }
    })
}

/// The first candidate that can be used.
fn any_candidate() -> Result<Library, Error> {
    let mut untrusted = String::new();
    for name in CANDIDATES {
        match Library::open(name) {
            Ok(library) => return Ok(library),
            Err(Unusable::Untrusted(reason)) => untrusted += &format!("; {name} {reason}"),
            Err(Unusable::Other(_)) => {}
        }
    }
    let status = if untrusted.is_empty() { Status::Unsupported } else { Status::NotFound };
    Err(Error::new(
        status,
        format!(
            "no BLAS library was found, where OpenBLAS, BLIS, MKL, ArmPL, Accelerate or one named by {CHOICE} was expected{untrusted}"
        ),
    ))
}

/// Why a library can't be used: the predicate of a sentence about it.
enum Unusable {
    /// Others may have written it, or what it brings in.
    Untrusted(String),
    /// It is missing, or no BLAS.
    Other(String),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Untrusted(reason) | Self::Other(reason)) = self;
        f.write_str(reason)
    }
}

/// # Safety
/// The library's initialisers may run.
#[cfg(not(windows))]
unsafe fn load(name: &str) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: the caller's contract.
    unsafe { libloading::Library::new(name) }
}

/// Names without a path are looked for in the program's folder and in the system's, and what a library links beside it too; never in
/// the working directory, nor in the folders of `PATH`.
///
/// # Safety
/// The library's initialisers may run.
#[cfg(windows)]
unsafe fn load(name: &str) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::windows::{
        LOAD_LIBRARY_SEARCH_DEFAULT_DIRS, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR, Library,
    };

    let beside = match std::path::Path::new(name).is_absolute() {
        true => LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR,
        false => 0,
    };
    // SAFETY: the caller's contract.
    unsafe { Library::load_with_flags(name, LOAD_LIBRARY_SEARCH_DEFAULT_DIRS | beside) }.map(Into::into)
}

impl Library {
    /// Loads a library, turns off its threads, and tries a product. The error is the predicate of a sentence about the
    /// library.
    fn open(name: &str) -> Result<Self, Unusable> {
        trust::check_name(name).map_err(Unusable::Untrusted)?;
        let before = trust::loaded();
        // SAFETY: loading runs the library's initialisers. It is a BLAS that the system's loader found, or the file that
        // the user named to be loaded; its file has been checked where its name says which one it is.
        let library =
            unsafe { load(name) }.map_err(|error| Unusable::Other(format!("can't be loaded: {error}")))?;
        if let Err(reason) = trust::check_loaded(&before) {
            // Its initialisers have run, and nothing more of it will.
            std::mem::forget(library);
            return Err(Unusable::Untrusted(reason));
        }
        // SAFETY: the name and the type are those of the CBLAS standard, and the check below tries them.
        let sgemm = unsafe { library.get::<Sgemm>(b"cblas_sgemm\0") }
            .map(|symbol| *symbol)
            .map_err(|_| Unusable::Other("has no cblas_sgemm, which was expected of a BLAS".to_owned()))?;
        // The host's threads share the rows out already.
        for setter in [&b"openblas_set_num_threads\0"[..], b"MKL_Set_Num_Threads\0"] {
            // SAFETY: both libraries document the function with this type.
            if let Ok(set) = unsafe { library.get::<unsafe extern "C" fn(c_int)>(setter) } {
                // SAFETY: as documented, it may be called at any time.
                unsafe { set(1) };
            }
        }
        type SetBlisThreads = unsafe extern "C" fn(isize);
        // SAFETY: BLIS documents the function with this type: its dim_t is as wide as a pointer by default.
        let set_blis_threads = unsafe { library.get::<SetBlisThreads>(b"bli_thread_set_num_threads\0") };
        if let Ok(set) = set_blis_threads {
            // SAFETY: as documented, it may be called at any time.
            unsafe { set(1) };
        }
        // Never unloaded: a BLAS may keep threads and memory.
        std::mem::forget(library);
        let name = name.rsplit(std::path::is_separator).next().unwrap_or(name).to_owned();
        let library = Self { name, sgemm };
        if library.is_sound() {
            Ok(library)
        } else {
            Err(Unusable::Other("multiplies wrongly: a BLAS with 32-bit integers was expected".to_owned()))
        }
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a small product comes out right, in both forms.
    fn is_sound(&self) -> bool {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let panels =
            [(Form::Rows, [1.0, 0.0, -1.0, 2.0, 1.0, 0.0]), (Form::Columns, [1.0, 2.0, 0.0, 1.0, -1.0, 0.0])];
        panels.into_iter().all(|(form, panel)| {
            let mut out = [f32::NAN; 4];
            self.multiply(&x, &panel, form, [2, 2, 3], &mut out);
            out == [-2.0, 4.0, -2.0, 13.0]
        })
    }

    /// `out[t * rows + r] = x[t] . panel[r]`, with sizes `[n_tokens, rows, columns]`; what `out` held is not read.
    ///
    /// # Panics
    /// Where a slice is not as long as the sizes say, or a size is too large for a 32-bit integer.
    pub(crate) fn multiply(&self, x: &[f32], panel: &[f32], form: Form, sizes: [usize; 3], out: &mut [f32]) {
        let [n_tokens, rows, columns] = sizes;
        assert!(
            x.len() == n_tokens * columns && panel.len() == rows * columns && out.len() == n_tokens * rows
        );
        if out.is_empty() || columns == 0 {
            out.fill(0.0);
            return;
        }
        let [m, n, k] = sizes.map(|size| c_int::try_from(size).expect("sizes of a batch fit in 32 bits"));
        let (transposed, stride) = match form {
            Form::Rows => (TRANSPOSED, k),
            Form::Columns => (AS_IS, n),
        };
        // SAFETY: in row-major order A is m rows of k, C m rows of n, and B k rows of n or, transposed, n rows of k, each
        // row right behind the one before: the slices have just these lengths. With beta 0, C is only written.
        unsafe {
            (self.sgemm)(
                ROW_MAJOR,
                AS_IS,
                transposed,
                m,
                n,
                k,
                1.0,
                x.as_ptr(),
                k,
                panel.as_ptr(),
                stride,
                0.0,
                out.as_mut_ptr(),
                n,
            );
        }
    }
}
