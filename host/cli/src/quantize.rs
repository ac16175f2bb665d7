//! `host quantize`: convert a model file to another element type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PathBufValueParser, PossibleValue};
use herald::files::{Readers, Unfinished};
use herald::gguf::{Gguf, GgufError};
use herald::threads;
use herald_api::DType;
use herald_convert::imatrix::ImportanceMatrix;
use herald_convert::quantize::{self, Plan, QuantizeError, QuantizeOptions};
use serde_json::json;

use super::arguments::Listed;
use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::{dtypes, output, progress, store, written};

/// The mixture's name.
const MIXTURE: &str = "q4_k_m";

/// Write a model file with its matrices in another element type
#[derive(Debug, Args)]
#[command(
    after_help = "Vectors, norms, convolutions and routers stay as they are. If a row is not a whole number of a type's blocks, its
tensor gets a type with smaller blocks, and a line says so. Best made from a file in f32, f16 or bf16: quantising
twice adds up both losses.

Examples:
  host quantize big.gguf small.gguf --type q4_k_m
  host quantize smollm2-135m-instruct smaller.gguf --type q3_k
  host quantize big.gguf tiny.gguf --type iq2_s --imatrix big.imatrix.gguf"
)]
pub(super) struct Quantize {
    /// The model: a GGUF file (of a split model, the first part), or a name that `host pull` knows
    #[arg(value_name = "PATH|NAME", value_parser = Listed::new(PathBufValueParser::new(), store::values), hide_possible_values = true)]
    input: PathBuf,
    /// The file to write
    output: PathBuf,
    /// The type of the matrices
    #[arg(short = 'T', long = "type", value_name = "TYPE", value_parser = Listed::new(wanted, all_wanted))]
    dtype: Wanted,
    /// An importance matrix, as `host imatrix` or llama.cpp writes them: what matters more is kept more exactly
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// The type of the output head [default: as --type, but at least q6_k]
    #[arg(long, value_name = "TYPE", value_parser = Listed::new(dtypes::writable, dtypes::all_writable), hide_possible_values = true)]
    output_type: Option<DType>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What the matrices become.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// All of one type.
    Plain(DType),
    /// The usual mixture of 4 bits.
    Q4KM,
}

fn wanted(name: &str) -> Result<Wanted, String> {
    if name.eq_ignore_ascii_case(MIXTURE) {
        return Ok(Wanted::Q4KM);
    }
    dtypes::writable(name).map(Wanted::Plain).map_err(|error| format!("{error}, {MIXTURE}"))
}

fn all_wanted() -> Vec<PossibleValue> {
    let mixture = PossibleValue::new(MIXTURE).help("the usual mixture of q4_k and q6_k");
    [mixture].into_iter().chain(dtypes::all_writable()).collect()
}

impl Quantize {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let input = store::file(&self.input, options.quiet)?;
        let gguf = Gguf::open(&input).map_err(herald::Error::from)?;
        let matrix = self.imatrix.as_deref().map(|file| (file, "the importance matrix"));
        written::check(&self.output, gguf.paths().map(|file| (file, written::MODEL)).chain(matrix))?;
        let plan = match self.dtype {
            Wanted::Plain(dtype) => Plan::new(&gguf, &QuantizeOptions { dtype, head: self.output_type }),
            Wanted::Q4KM => Plan::q4_k_m(&gguf, self.output_type),
        };
        let importance = self.imatrix.as_deref().map(ImportanceMatrix::open).transpose();
        let importance = importance.map_err(|error| Failure::Failed(error.to_string()))?;
        if !options.quiet {
            notes(&input, &gguf, &plan, importance.as_ref());
        }
        let failed = |error: std::io::Error| Failure::file(&self.output, "it can't be written", &error);
        let pool = threads::shared(options.threads).map_err(herald::Error::from)?;
        let file = Unfinished::create(&self.output, Readers::Usual).map_err(failed)?;
        let weights = gguf.tensors().map(|info| info.elements()).sum();
        let bar = progress::bar("quantizing", weights, "weights", options.quiet);
        let lookout = Lookout::begin();
        let written = quantize::write(&gguf, &plan, importance.as_ref(), &pool, file, &mut |weights| {
            bar.inc(weights as u64);
            lookout.go_on()
        });
        bar.finish_and_clear();
        let file = written.map_err(|error| match error {
            QuantizeError::Cancelled => Failure::Interrupted,
            QuantizeError::Gguf(GgufError::Io { source, .. }) => failed(source),
            error => Failure::Failed(format!("{}: {error}", input.display())),
        })?;
        let bytes = file.file().metadata().map_err(failed)?.len();
        file.keep(&self.output).map_err(failed)?;
        self.report(&gguf, &plan, bytes)
    }

    fn report(&self, gguf: &Gguf, plan: &Plan, bytes: u64) -> Result<(), Failure> {
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        for dtype in plan.types() {
            *types.entry(dtype.name()).or_default() += 1;
        }
        if self.json {
            let fallbacks: Vec<_> = plan
                .fallbacks()
                .iter()
                .map(|fallback| {
                    json!({
                        "row": fallback.columns,
                        "wanted": fallback.wanted.name(),
                        "type": fallback.dtype.name(),
                        "tensors": fallback.tensors,
                    })
                })
                .collect();
            return output::json(&json!({
                "path": self.output.to_string_lossy(),
                "bytes": bytes,
                "bytes_before": gguf.file_bytes(),
                "tensors": types,
                "fallbacks": fallbacks,
            }));
        }
        let types: Vec<String> = types.iter().map(|(name, count)| format!("{count} {name}")).collect();
        output::line(format!(
            "{}: {}, from {}; tensors: {}",
            self.output.display(),
            output::bytes(bytes),
            output::bytes(gguf.file_bytes()),
            types.join(", ")
        ))
    }
}

/// Notes before the work: the input is quantised already, a tensor gets another type than the requested one, or its importance
/// isn't known.
fn notes(input: &Path, gguf: &Gguf, plan: &Plan, importance: Option<&ImportanceMatrix>) {
    let mut changed = gguf.tensors().zip(plan.types()).filter(|(info, dtype)| info.dtype() != *dtype);
    if let Some((info, dtype)) = changed.find(|(info, _)| info.dtype().block_len() > 1) {
        output::note(format_args!(
            "{}: it is quantized already (to {}, for example); {dtype} made from it is worse than made from the original",
            input.display(),
            info.dtype()
        ));
    }
    let unknown = importance.map_or(0, |importance| plan.unknown(gguf, importance));
    if unknown > 0 {
        output::note(format_args!("{} that the importance matrix knows nothing of", count(unknown)));
    }
    for fallback in plan.fallbacks() {
        output::note(format_args!(
            "{} with rows of {} weights, not a multiple of {}'s {}: {} instead",
            count(fallback.tensors),
            fallback.columns,
            fallback.wanted,
            fallback.wanted.block_len(),
            fallback.dtype
        ));
    }
}

fn count(tensors: usize) -> String {
    if tensors == 1 { "1 tensor".to_owned() } else { format!("{tensors} tensors") }
}
