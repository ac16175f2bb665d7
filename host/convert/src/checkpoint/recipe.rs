//! How a tensor of the file is made of published ones: which rows and columns of them, and what is done to the numbers.

use std::ops::Range;

use herald_api::DType;

use super::shards::{Published, Shards, Stored};

/// Which rows of a published tensor are taken.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    /// These, in their order.
    Range(Range<usize>),
    /// These, in this order.
    List(Vec<u32>),
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::List(list) => list.len(),
        }
    }

    fn at(&self, index: usize) -> usize {
        match self {
            Self::Range(range) => range.start + index,
            Self::List(list) => list.get(index).copied().unwrap_or_default() as usize,
        }
    }
}

/// A part of a published tensor, as a matrix.
#[derive(Clone, Debug)]
pub(super) struct Part {
    tensor: Published,
    /// Whether the last two dimensions change places first.
    transposed: bool,
    rows: Rows,
    /// Which columns, in which order; without a list all.
    columns: Option<Vec<u32>>,
}

impl Part {
    /// All of a tensor.
    pub(super) fn whole(tensor: &Published) -> Self {
        let mut part =
            Self { tensor: tensor.clone(), transposed: false, rows: Rows::Range(0..0), columns: None };
        part.rows = Rows::Range(0..part.all_rows());
        part
    }

    /// The same with the last two dimensions swapped.
    pub(super) fn transposed(mut self) -> Self {
        self.transposed = true;
        self.rows = Rows::Range(0..self.all_rows());
        self
    }

    /// Only these rows. Each must be below [`Part::all_rows`].
    pub(super) fn rows(mut self, rows: Rows) -> Self {
        self.rows = rows;
        self
    }

    /// Only these columns. Each must be below [`Part::width`].
    pub(super) fn columns(mut self, columns: Vec<u32>) -> Self {
        self.columns = Some(columns);
        self
    }

    /// The two dimensions that may be swapped.
    fn matrix(&self) -> (usize, usize) {
        match *self.tensor.dims.as_slice() {
            [.., rows, columns] => (rows, columns),
            // A vector's rows are its numbers.
            [rows] => (rows, 1),
            [] => (1, 1),
        }
    }

    /// The rows that there are to choose from.
    pub(super) fn all_rows(&self) -> usize {
        let numbers: usize = self.tensor.dims.iter().product();
        numbers.checked_div(self.width()).unwrap_or(0)
    }

    /// A row's length, before columns are chosen.
    pub(super) fn width(&self) -> usize {
        let (rows, columns) = self.matrix();
        if self.transposed { rows } else { columns }
    }

    /// The length of rows as they are taken.
    fn taken_width(&self) -> usize {
        self.columns.as_ref().map_or(self.width(), Vec::len)
    }

    /// How many numbers it has.
    fn len(&self) -> usize {
        self.rows.len() * self.taken_width()
    }

    /// Whether it is a tensor just as published.
    fn is_whole(&self) -> bool {
        let all = matches!(&self.rows, Rows::Range(range) if *range == (0..self.all_rows()));
        all && !self.transposed && self.columns.is_none()
    }

    /// Reads row `index` of those taken.
    fn read(&self, shards: &Shards, index: usize, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let Stored::Floats(dtype) = self.tensor.stored else { return };
        let bytes = shards.bytes(&self.tensor);
        let size = dtype.row_bytes(1).unwrap_or(1);
        let row = self.rows.at(index);
        let width = self.width();
        scratch.resize(width, 0.0);
        if self.transposed {
            let (rows, columns) = self.matrix();
            let (matrix, column) = (row / columns, row % columns);
            for (source, number) in scratch.iter_mut().enumerate() {
                let at = ((matrix * rows + source) * columns + column) * size;
                herald_formats::dequantize_row(dtype, &bytes[at..at + size], std::slice::from_mut(number));
            }
        } else {
            herald_formats::dequantize_row(
                dtype,
                &bytes[row * width * size..(row + 1) * width * size],
                scratch,
            );
        }
        match &self.columns {
            None => out.copy_from_slice(scratch),
            Some(columns) => {
                for (number, &column) in out.iter_mut().zip(columns) {
                    *number = scratch[column as usize];
                }
            }
        }
    }
}

/// What is done to each number.
#[derive(Clone, Debug, Default)]
pub(super) enum Change {
    /// Nothing.
    #[default]
    None,
    /// One is added: a norm's weights are published as differences from it.
    PlusOne,
    /// `-exp(x)`: decay rates are published as logarithms.
    NegExp,
    /// Multiplied by each of `all` in turn, then by the factor of the rows that it is in.
    Scale {
        /// For all rows.
        all: Vec<f32>,
        /// For some.
        rows: Vec<(Range<usize>, f32)>,
    },
}

impl Change {
    fn apply(&self, row: usize, numbers: &mut [f32]) {
        match self {
            Self::None => {}
            Self::PlusOne => numbers.iter_mut().for_each(|x| *x += 1.0),
            // Rounded once, from float64.
            Self::NegExp => numbers.iter_mut().for_each(|x| *x = -f64::from(*x).exp() as f32),
            Self::Scale { all, rows } => {
                let of_row = rows.iter().filter(|(range, _)| range.contains(&row)).map(|(_, factor)| *factor);
                for factor in all.iter().copied().chain(of_row) {
                    numbers.iter_mut().for_each(|x| *x *= factor);
                }
            }
        }
    }
}

/// Where a tensor's numbers come from.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Parts of published tensors, one behind the other, with a change.
    Parts(Vec<Part>, Change),
    /// Numbers from the configuration.
    Numbers(Vec<f32>),
    /// MXFP4 as published: codes `[.., rows, blocks, 16]` and scales `[.., rows, blocks]`, of which each `step`-th row from `first`
    /// on is taken.
    Mxfp4 {
        /// The codes.
        codes: Published,
        /// The scales.
        scales: Published,
        /// The first row.
        first: usize,
        /// From one row to the next.
        step: usize,
    },
}

/// A tensor of the file.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// In PyTorch's order: the length of a row last.
    pub(super) dims: Vec<usize>,
    pub(super) content: Content,
}

impl Recipe {
    /// The number of weights.
    pub(super) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// A row's length.
    pub(super) fn width(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// The published bytes, if they are the tensor in this type as they stand.
    pub(super) fn as_published<'s>(&self, shards: &'s Shards, dtype: DType) -> Option<Vec<&'s [u8]>> {
        let Content::Parts(parts, Change::None) = &self.content else { return None };
        let same = |part: &Part| part.is_whole() && part.tensor.stored == Stored::Floats(dtype);
        parts.iter().all(same).then(|| parts.iter().map(|part| shards.bytes(&part.tensor)).collect())
    }

    /// The numbers of rows `first` and on, as many as `out` has room for.
    pub(super) fn read(&self, shards: &Shards, first: usize, out: &mut [f32]) {
        let width = self.width();
        match &self.content {
            Content::Numbers(numbers) => {
                out.copy_from_slice(&numbers[first * width..][..out.len()]);
            }
            Content::Mxfp4 { .. } => {}
            Content::Parts(parts, change) => {
                let mut scratch = Vec::new();
                let (mut skipped, mut done) = (first * width, 0);
                let mut before = 0;
                for part in parts {
                    let taken = part.taken_width();
                    let begin = (skipped / taken.max(1)).min(part.rows.len());
                    skipped -= (begin * taken).min(skipped);
                    for row in begin..part.rows.len() {
                        if done == out.len() {
                            return;
                        }
                        let numbers = &mut out[done..done + taken];
                        part.read(shards, row, &mut scratch, numbers);
                        change.apply(before + row, numbers);
                        done += taken;
                    }
                    before += part.rows.len();
                }
            }
        }
    }

    /// Whether its parts' rows are its own, so that it can be read from any row on.
    pub(super) fn has_rows(&self) -> bool {
        match &self.content {
            Content::Parts(parts, _) => parts.iter().all(|part| part.taken_width() == self.width()),
            _ => true,
        }
    }

    /// Whether the parts are as many numbers as the tensor has.
    pub(super) fn is_complete(&self) -> bool {
        match &self.content {
            Content::Parts(parts, _) => parts.iter().map(Part::len).sum::<usize>() == self.elements(),
            Content::Numbers(numbers) => numbers.len() == self.elements(),
            Content::Mxfp4 { .. } => true,
        }
    }

    /// MXFP4's blocks as GGUF has them: the scale, then 16 bytes, of which byte `j` holds the codes of weights `j` and `j + 16`,
    /// where published bytes hold neighbours. Rows `first` and on, as many as `out` has room for.
    pub(super) fn read_blocks(&self, shards: &Shards, first_row: usize, out: &mut [u8]) {
        let Content::Mxfp4 { codes, scales, first, step } = &self.content else { return };
        let (codes, scales) = (shards.bytes(codes), shards.bytes(scales));
        let blocks = self.width() / 32;
        for (row, out) in out.chunks_exact_mut(blocks * 17).enumerate() {
            let row = first + (first_row + row) * step;
            for (block, out) in out.chunks_exact_mut(17).enumerate() {
                let at = row * blocks + block;
                let (codes, Some((scale, packed))) = (&codes[at * 16..][..16], out.split_first_mut()) else {
                    continue;
                };
                *scale = scales[at];
                let code = |index: usize| (codes[index / 2] >> (4 * (index % 2))) & 15;
                for (index, byte) in packed.iter_mut().enumerate() {
                    *byte = code(index) | code(index + 16) << 4;
                }
            }
        }
    }
}
