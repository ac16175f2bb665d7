//! `host show`: what a model is, in a few lines.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PathBufValueParser;
use herald::gguf::Gguf;
use serde_json::json;

use super::arguments::Listed;
use super::failure::Failure;
use super::options::EngineOptions;
use super::{facts, output, store};

/// Show what a model is: licence, size, architecture, parameters, quant, context, chat template
#[derive(Debug, Args)]
#[command(after_help = "`host info` shows everything that the file holds.")]
pub(super) struct Show {
    /// The model: a GGUF file, or a name that was pulled [default: as --model says]
    #[arg(value_name = "PATH|NAME", value_parser = Listed::new(PathBufValueParser::new(), store::values), hide_possible_values = true)]
    model: Option<PathBuf>,
    /// Print the chat template alone
    #[arg(long, conflicts_with = "json")]
    template: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let path = match &self.model {
            Some(model) => store::file(model, options.quiet)?,
            None => options.model_path()?,
        };
        let gguf = Gguf::open(&path).map_err(herald::Error::from)?;
        let template = facts::text(&gguf, "tokenizer.chat_template");
        if self.template {
            let what = "it has no chat template (tokenizer.chat_template), where one was expected";
            let template = template.ok_or_else(|| Failure::Failed(format!("{}: {what}", path.display())))?;
            return output::text(template);
        }
        let (name, parameters) = (facts::text(&gguf, "general.name"), facts::parameters(&gguf));
        let (licence, link) = facts::licence(&gguf);
        if self.json {
            return output::json(&json!({
                "path": path.to_string_lossy(),
                "name": name,
                "licence": licence,
                "licence_link": link,
                "bytes": gguf.file_bytes(),
                "architecture": facts::architecture(&gguf),
                "parameters": parameters,
                "quant": facts::quant(&gguf),
                "context": facts::context(&gguf),
                "chat_template": template,
            }));
        }
        let or_none = |text: Option<&str>| text.unwrap_or("not named").to_owned();
        let licence = match link {
            Some(link) => format!("{}, {link}", or_none(licence)),
            None => or_none(licence),
        };
        let template = match template {
            Some(template) => format!("{} characters; --template prints it", template.chars().count()),
            None => "none".to_owned(),
        };
        let mut table = output::table(&["MODEL", &or_none(name)]);
        for (what, value) in [
            ("file", path.display().to_string()),
            ("licence", licence),
            ("size", output::bytes(gguf.file_bytes())),
            ("architecture", or_none(facts::architecture(&gguf))),
            ("parameters", facts::rounded(parameters)),
            ("quant", facts::quant(&gguf)),
            (
                "context",
                facts::context(&gguf).map_or("not named".to_owned(), |tokens| format!("{tokens} tokens")),
            ),
            ("chat template", template),
        ] {
            table.add_row(vec![what.to_owned(), value]);
        }
        output::print_table(&table)
    }
}
