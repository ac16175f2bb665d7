//! Small models of the shapes are loaded and run.

use std::fs::File;
use std::path::{Path, PathBuf};

use herald::NeuroEngine;
use herald::gguf::Gguf;
use herald_testing::cpu_options;

use super::*;

fn written(recipe: &Recipe, storage: Storage, folder: &Path) -> PathBuf {
    let path = folder.join("random.gguf");
    write_recipe(recipe, storage, File::create(&path).unwrap()).unwrap();
    path
}

#[test]
fn small_ones_run_a_token() {
    let folder = tempfile::tempdir().unwrap();
    for (name, recipe) in shapes::tiny() {
        for storage in [Storage::Plain(DType::F32), Storage::Plain(DType::Q8_0), Storage::Q4KM] {
            let path = written(&recipe, storage, folder.path());
            let engine =
                NeuroEngine::load(&path, &cpu_options()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let numbers = if engine.plan().has_head() {
                let mut sequence = engine.sequence().unwrap();
                let mut logits = Vec::new();
                engine.logits(&mut sequence, &[40, 41, 42], &mut |row| logits = row.to_vec()).unwrap();
                engine.logits(&mut sequence, &[43], &mut |row| logits = row.to_vec()).unwrap();
                logits
            } else {
                engine.embed_texts(&["a b"], &herald::EmbedOptions::default()).unwrap().remove(0)
            };
            let mean = numbers.iter().sum::<f32>() / numbers.len() as f32;
            let spread = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / numbers.len() as f32;
            assert!((0.001..1000.0).contains(&spread), "{name} as {storage:?}: a spread of {spread}");
        }
    }
}

/// The real sizes give plans too: every tensor has the shape that its layer expects. The files have holes in place of weights.
#[test]
fn large_ones_have_plans() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holes.gguf");
    for shape in &shapes::ALL {
        let recipe = (shape.recipe)();
        let (writer, types) = head(&recipe, Storage::Q4KM).unwrap();
        let file = File::create(&path).unwrap();
        drop(writer.begin(&file).unwrap());
        let bytes = |(tensor, dtype): (&recipe::Tensor, &DType)| {
            let rows: usize = tensor.dims[1..].iter().product();
            (dtype.row_bytes(tensor.dims[0]).unwrap() * rows).next_multiple_of(64)
        };
        let data: usize = recipe.tensors.iter().zip(&types).map(bytes).sum();
        file.set_len(file.metadata().unwrap().len() + data as u64 + 64).unwrap();
        let plan = herald::model::plan(&Gguf::open(&path).unwrap());
        let name = format!("{} {}", shape.architecture, shape.size);
        plan.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
