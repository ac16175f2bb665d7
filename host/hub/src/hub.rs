//! Models of the hub's repositories: what is there, which file is meant, and getting it.

use std::fs;
use std::path::PathBuf;

use crate::api::{self, Facts};
use crate::cache::RepoCache;
use crate::download::{Job, download};
use crate::error::{Error, Result};
use crate::http::Client;
use crate::names::HubModel;
use crate::offers::{Offer, RepoFile, choose, offers};
use crate::settings::Settings;
use crate::watch::Watch;

/// Fetches models, and knows those that were.
#[derive(Debug)]
pub struct Hub {
    pub(crate) settings: Settings,
    pub(crate) client: Client,
}

/// What would be fetched.
#[derive(Debug)]
pub struct Plan {
    /// What was asked for.
    pub model: HubModel,
    /// The commit that its revision is at.
    pub commit: String,
    /// The model's files.
    pub offer: Offer,
    /// How many models there are to choose from.
    pub choices: usize,
    /// The licence that the repository's card names.
    pub licence: Option<String>,
    /// Where that licence is.
    pub licence_link: Option<String>,
    /// Whether the hub gives it only to those who accepted its terms there.
    pub gated: bool,
}

/// A model that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its first file.
    pub path: PathBuf,
    /// The size of all of its files in bytes.
    pub bytes: u64,
    /// Whether anything had to be fetched.
    pub fetched: bool,
}

impl Hub {
    /// A hub with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { client: Client::new(&settings), settings }
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Asks the hub for a repository, and chooses the model that is meant. `memory` is this machine's RAM in bytes, or 0 where that
    /// isn't known; see [`choose`].
    ///
    /// # Errors
    /// Where the hub can't be asked or refuses, or has no such model.
    pub fn plan(&self, model: &HubModel, memory: u64, watch: &mut Watch<'_>) -> Result<Plan> {
        if self.settings.offline {
            return Err(Error::Failed(format!(
                "{model} isn't on this machine, and nothing is fetched: HF_HUB_OFFLINE or --offline says so"
            )));
        }
        let known = api::known(&self.client, &self.settings, model, watch)?;
        let found = offers(&known.files);
        let offer = choose(&model.repo, &found, &model.wanted, memory)?.clone();
        Ok(Plan {
            model: model.clone(),
            commit: known.commit,
            offer,
            choices: found.len(),
            licence: known.licence,
            licence_link: known.licence_link,
            gated: known.gated,
        })
    }

    /// The plan's first file, where all of its files are in the cache with the sizes that they should have.
    #[must_use]
    pub fn is_there(&self, plan: &Plan) -> Option<PathBuf> {
        let cache = RepoCache::new(&self.settings.cache, &plan.model.repo);
        let pointer = |file: &RepoFile| {
            let pointer = cache.pointer(&plan.commit, &file.path);
            let is_there = pointer.metadata().is_ok_and(|facts| facts.is_file() && facts.len() == file.bytes);
            is_there.then_some(pointer)
        };
        let pointers: Option<Vec<PathBuf>> = plan.offer.files.iter().map(pointer).collect();
        pointers?.into_iter().next()
    }

    /// Fetches what isn't there yet, checks it, and puts it into the shared cache.
    ///
    /// # Errors
    /// Where it can't be had, is damaged on its way, or can't be written. What has come of a file is kept, and the next call goes on
    /// from there.
    pub fn fetch(&self, plan: &Plan, watch: &mut Watch<'_>) -> Result<Fetched> {
        let cache = RepoCache::new(&self.settings.cache, &plan.model.repo);
        let bytes = plan.offer.bytes();
        if let Some(path) = self.is_there(plan) {
            cache.note(&plan.model.revision, &plan.commit)?;
            return Ok(Fetched { path, bytes, fetched: false });
        }
        cache.prepare(&plan.commit)?;
        let (mut first, mut bytes) = (None, 0);
        for file in &plan.offer.files {
            let facts = api::facts(&self.client, &self.settings, &plan.model, &plan.commit, file, watch)?;
            self.fetch_blob(&cache, plan, file, &facts, watch)?;
            let pointer = cache.point(&plan.commit, &file.path, &facts.etag)?;
            first.get_or_insert(pointer);
            bytes += facts.bytes;
        }
        cache.note(&plan.model.revision, &plan.commit)?;
        let path = first.ok_or_else(|| Error::Failed(format!("{} has no files", plan.model)))?;
        Ok(Fetched { path, bytes, fetched: true })
    }

    /// Has a file's contents be among the blobs.
    fn fetch_blob(
        &self,
        cache: &RepoCache,
        plan: &Plan,
        file: &RepoFile,
        facts: &Facts,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let (blob, partial) = (cache.blob(&facts.etag), cache.partial(&facts.etag));
        let is_there = || blob.metadata().is_ok_and(|found| found.is_file() && found.len() == facts.bytes);
        if is_there() {
            return Ok(());
        }
        let _lock = cache.lock(&facts.etag, self.settings.patience, watch)?;
        // Whoever held the lock has fetched it.
        if is_there() {
            return Ok(());
        }
        let endpoint = &self.settings.endpoint;
        let url = api::file_url(endpoint, &plan.model.repo, &plan.commit, &file.path);
        let job = Job {
            name: &file.path,
            url: &url,
            partial: &partial,
            bytes: Some(facts.bytes),
            sha256: facts.sha256(),
            validator: None,
            patience: self.settings.patience,
            refusal: &|answer| api::refusal(&self.client, endpoint, &plan.model, Some(&file.path), answer),
            begins: &|_| Ok(()),
        };
        download(&self.client, &job, watch)?;
        fs::rename(&partial, &blob).map_err(|error| Error::file(&blob, "it can't be written", &error))
    }
}
