//! How far an answer has come in its form, what may come next, and how it could end.

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokEnv, TokenId};

use super::spelling::tokens_of;
use super::way::{Pathfinder, Place};
use super::words::plainly;
use super::{Constraint, Forms};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Bytes that tend to lead out of what is open, in the order in which they are tried.
const CLOSING: &[u8] = b"\"}]0,: ntfeE.-/";

/// The longest way to the end that is searched for, in tokens.
const MAX_WAY_TOKENS: usize = 512;

/// The most tokens that a search in the parser tries: other answers wait for it.
const MAX_TRIES: usize = 4_000;

/// How far one answer has come in its form.
pub(crate) struct Guide {
    matcher: Matcher,
    tokens: TokEnv,
    /// Knows the shortest way to the end; `None` for a form that it can't follow.
    pathfinder: Option<Pathfinder>,
    /// Single tokens for the bytes of [`CLOSING`], then for all other bytes of text.
    bytes: Vec<TokenId>,
    /// Whether the model's own end-of-generation tokens are not to be chosen.
    ignore_eos: bool,
    /// A way to the end from here, where one was found.
    way: Option<Way>,
    /// What may come next, where that was asked for before.
    allowed: Option<SimpleVob>,
    /// Ends the first search for a way.
    stop: Option<Stop>,
    /// Tokens that a logit belongs to; the last one more stands for the end in models that have no token for it.
    n_logits: usize,
}

/// A way to the end.
enum Way {
    /// This text, which takes no more tokens than bytes.
    Text(Vec<u8>),
    /// These tokens, which the form allows.
    Tokens(Vec<TokenId>),
}

impl Way {
    /// Tokens that it takes at most.
    fn most(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }
}

/// What may come next.
pub(crate) enum Next {
    /// Nothing: the answer is whole.
    End,
    /// These tokens: bit `token % 32` of word `token / 32`.
    Tokens(SimpleVob),
}

impl Guide {
    pub(crate) fn new(
        forms: &Forms,
        constraint: &Constraint,
        ignore_eos: bool,
        stop: Option<&Stop>,
    ) -> Result<Self> {
        let (matcher, pathfinder) = forms.matcher(constraint, stop)?;
        let tokens = matcher.tok_env().map_err(failed)?;
        let trie = tokens.tok_trie();
        let others = (0..=0x7f_u8).filter(|byte| !CLOSING.contains(byte));
        let bytes = CLOSING.iter().copied().chain(others);
        let bytes = bytes.filter_map(|byte| trie.token_id(&[byte])).collect();
        let (way, allowed, stop) = (None, None, stop.cloned());
        let n_logits = trie.vocab_size() - 1;
        let mut guide = Self { matcher, tokens, pathfinder, bytes, ignore_eos, way, allowed, stop, n_logits };
        guide.way = guide.shortest_way()?;
        // A way that was found is checked at once: later ones are found in the same manner.
        guide.way = guide.way_in_tokens()?;
        if guide.way.is_none() {
            guide.pathfinder = None;
            guide.way = guide.find_way(MAX_WAY_TOKENS)?.map(Way::Tokens);
        }
        // Later searches go a token further, and must leave the matcher where they found it.
        guide.stop = None;
        Ok(guide)
    }

    /// Whether the answer is whole as it is.
    pub(crate) fn is_whole(&mut self) -> Result<bool> {
        Ok(self.matcher.is_stopped() || self.matcher.is_accepting().map_err(failed)?)
    }

    /// What may come next. `left`: tokens that there is still room for, at least 1.
    pub(crate) fn next(&mut self, left: usize) -> Result<Next> {
        if self.matcher.is_stopped() {
            return Ok(Next::End);
        }
        // A token shortens the way to the end by one at most. Where the way takes all the room that is left, only its own next
        // token will do.
        if self.way.as_ref().is_some_and(|way| way.most() >= left) {
            self.way = self.way_in_tokens()?;
        }
        if let Some(Way::Tokens(way)) = &self.way
            && way.len() == left
            && let Some(first) = way.first()
        {
            return Ok(Next::Tokens(self.tokens.tok_trie().singleton_token_set(*first)));
        }
        if self.allowed.is_none() {
            let mut allowed = self.matcher.compute_mask().map_err(failed)?;
            if self.ignore_eos {
                for token in self.tokens.tok_trie().eos_tokens() {
                    allowed.disallow_token(*token);
                }
            }
            self.allowed = Some(allowed);
        }
        let allowed = self.allowed.clone().unwrap_or_default();
        Ok(if allowed.is_zero() { Next::End } else { Next::Tokens(allowed) })
    }

    /// Takes a token that was among the next. `left`: the tokens that there is room for after it. Where no way to the end would
    /// fit after it, this takes another token and returns that.
    pub(crate) fn take(&mut self, token: TokenId, left: usize) -> Result<Option<TokenId>> {
        if self.tokens.tok_trie().eos_tokens().contains(&token) {
            return Ok(None);
        }
        let before = self.pathfinder.as_ref().map(Pathfinder::place);
        self.consume(token)?;
        let way = match &self.way {
            Some(Way::Tokens(way)) if way.first() == Some(&token) => {
                self.way = Some(Way::Tokens(way[1..].to_vec()));
                return Ok(None);
            }
            _ => self.way.take(),
        };
        self.way = self.shortest_way()?;
        if self.way.as_ref().is_some_and(|way| way.most() > left) {
            self.way = self.way_in_tokens()?;
        }
        if way.is_none() || self.way.as_ref().is_some_and(|way| way.most() <= left) {
            return Ok(None);
        }
        // No way from here fits. Where the one from before does, it is taken.
        let found = std::mem::replace(&mut self.way, way);
        self.go_back(before)?;
        self.way = self.way_in_tokens()?;
        let end = self.tokens.tok_trie().eos_token();
        match &mut self.way {
            // It is whole as it is.
            Some(Way::Tokens(way)) if way.is_empty() && (end as usize) < self.n_logits => {
                return Ok(Some(end));
            }
            Some(Way::Tokens(way)) if !way.is_empty() && way.len() <= left + 1 => {
                let instead = way.remove(0);
                self.consume(instead)?;
                return Ok(Some(instead));
            }
            _ => {}
        }
        self.consume(token)?;
        self.way = found;
        Ok(None)
    }

    /// The text that the form allows nothing but, as tokens that the model would likely choose for it.
    pub(crate) fn forced(&mut self) -> Vec<TokenId> {
        if self.matcher.is_stopped() {
            return Vec::new();
        }
        let forced = self.matcher.compute_ff_bytes();
        self.tokens.tok_trie().greedy_tokenize(&forced)
    }

    fn consume(&mut self, token: TokenId) -> Result<()> {
        self.allowed = None;
        self.matcher.consume_token(token).map_err(failed)?;
        let trie = self.tokens.tok_trie();
        if self.pathfinder.as_mut().is_some_and(|pathfinder| !pathfinder.follow(trie.token(token))) {
            self.pathfinder = None;
        }
        Ok(())
    }

    /// Takes the last token back.
    fn go_back(&mut self, before: Option<Place>) -> Result<()> {
        self.allowed = None;
        self.matcher.rollback(1).map_err(failed)?;
        if let (Some(pathfinder), Some(before)) = (&mut self.pathfinder, before) {
            pathfinder.back_to(before);
        }
        Ok(())
    }

    /// The shortest way to the end that can be found from here.
    fn shortest_way(&mut self) -> Result<Option<Way>> {
        match &mut self.pathfinder {
            Some(pathfinder) => Ok(pathfinder.way(self.tokens.tok_trie()).map(Way::Text)),
            None => Ok(self.find_way(MAX_WAY_TOKENS)?.map(Way::Tokens)),
        }
    }

    /// The way as the fewest tokens, if the form allows them and they lead to the end.
    fn way_in_tokens(&mut self) -> Result<Option<Way>> {
        let text = match self.way.take() {
            Some(Way::Text(text)) => text,
            other => return Ok(other),
        };
        let Some(way) = tokens_of(self.tokens.tok_trie(), &text) else { return Ok(None) };
        let mut taken = 0;
        while taken < way.len() && self.matcher.try_consume_tokens(&way[taken..=taken]).map_err(failed)? == 1
        {
            taken += 1;
        }
        let leads = taken == way.len() && self.is_whole()?;
        self.matcher.rollback(taken).map_err(failed)?;
        Ok(leads.then_some(Way::Tokens(way)))
    }

    /// A way of at most `max_tokens` tokens to where the answer may end. The state is the same afterwards.
    fn find_way(&mut self, max_tokens: usize) -> Result<Option<Vec<TokenId>>> {
        let (mut way, mut tries) = (Vec::new(), MAX_TRIES);
        let found = loop {
            if self.is_whole()? {
                break true;
            }
            if way.len() >= max_tokens {
                break false;
            }
            if self.stop.as_ref().is_some_and(Stop::ends) {
                return Err(Error::Cancelled);
            }
            let before = way.len();
            // What is forced costs no search.
            let forced = self.matcher.compute_ff_bytes();
            for token in self.tokens.tok_trie().greedy_tokenize(&forced) {
                if way.len() >= max_tokens || self.matcher.try_consume_tokens(&[token]).map_err(failed)? == 0
                {
                    break;
                }
                way.push(token);
            }
            if way.len() > before {
                continue;
            }
            let Some(token) = self.step(&mut tries)? else { break false };
            way.push(token);
        };
        self.matcher.rollback(way.len()).map_err(failed)?;
        Ok(found.then_some(way))
    }

    /// Takes the best next token of a way to the end: one after which the answer may end, else the first that may come.
    /// `tries`: tokens that may still be tried.
    fn step(&mut self, tries: &mut usize) -> Result<Option<TokenId>> {
        let mut first = None;
        for index in 0..self.bytes.len() {
            let Some(left) = tries.checked_sub(1) else { return Ok(None) };
            *tries = left;
            let token = self.bytes[index];
            if self.matcher.validate_tokens(&[token]).map_err(failed)? == 0 {
                continue;
            }
            self.matcher.consume_token(token).map_err(failed)?;
            // What closes is taken as it comes; among other text, an end is looked for.
            if index < 3 || self.is_whole()? {
                return Ok(Some(token));
            }
            self.matcher.rollback(1).map_err(failed)?;
            first = first.or(Some(token));
        }
        if first.is_none() {
            // No single byte may come, so it is a character of several, or a special token.
            let allowed = self.matcher.compute_mask().map_err(failed)?;
            first = allowed.iter().next();
        }
        if let Some(token) = first {
            self.matcher.consume_token(token).map_err(failed)?;
        }
        Ok(first)
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Constraint(format!("the answer's form can't be followed: {}", plainly(&error.to_string())))
}
