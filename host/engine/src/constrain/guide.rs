//! How far an answer has come in its form, what may come next, and how it could end.

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokEnv, TokenId};

use super::{Constraint, Forms};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Bytes that tend to lead out of what is open, in the order in which they are tried.
const CLOSING: &[u8] = b"\"}]0,: ntfeE.-/";

/// The longest way to the end that is searched for, in tokens.
const MAX_WAY_TOKENS: usize = 512;

/// How far one answer has come in its form.
pub(crate) struct Guide {
    matcher: Matcher,
    tokens: TokEnv,
    /// Single tokens for the bytes of [`CLOSING`], then for all other bytes of text.
    bytes: Vec<TokenId>,
    /// Whether the model's own end-of-generation tokens are not to be chosen.
    ignore_eos: bool,
    /// A way to the end from here, where one was found.
    way: Option<Vec<TokenId>>,
    /// Ends the first search for a way.
    stop: Option<Stop>,
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
        let matcher = forms.matcher(constraint, stop)?;
        let tokens = matcher.tok_env().map_err(failed)?;
        let trie = tokens.tok_trie();
        let others = (0..=0x7f_u8).filter(|byte| !CLOSING.contains(byte));
        let bytes = CLOSING.iter().copied().chain(others);
        let bytes = bytes.filter_map(|byte| trie.token_id(&[byte])).collect();
        let mut guide = Self { matcher, tokens, bytes, ignore_eos, way: None, stop: stop.cloned() };
        guide.way = guide.find_way(MAX_WAY_TOKENS)?;
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
        if let Some(way) = self.way.as_ref().filter(|way| way.len() == left)
            && let Some(first) = way.first()
        {
            return Ok(Next::Tokens(self.tokens.tok_trie().singleton_token_set(*first)));
        }
        let mut allowed = self.matcher.compute_mask().map_err(failed)?;
        if self.ignore_eos {
            for token in self.tokens.tok_trie().eos_tokens() {
                allowed.disallow_token(*token);
            }
        }
        Ok(if allowed.is_zero() { Next::End } else { Next::Tokens(allowed) })
    }

    /// Takes a token that was among the next. `left`: the tokens that there is room for after it. Where no way to the end would
    /// fit after it, this takes another token and returns that.
    pub(crate) fn take(&mut self, token: TokenId, left: usize) -> Result<Option<TokenId>> {
        if self.tokens.tok_trie().eos_tokens().contains(&token) {
            return Ok(None);
        }
        self.matcher.consume_token(token).map_err(failed)?;
        let on_way = self.way.as_ref().is_some_and(|way| way.first() == Some(&token));
        if on_way {
            self.way.as_mut().map(|way| way.remove(0));
            return Ok(None);
        }
        let found = self.find_way(left.min(MAX_WAY_TOKENS))?;
        if let (None, Some(way)) = (&found, &mut self.way)
            && !way.is_empty()
            && way.len() <= left + 1
        {
            self.matcher.rollback(1).map_err(failed)?;
            let instead = way.remove(0);
            self.matcher.consume_token(instead).map_err(failed)?;
            return Ok(Some(instead));
        }
        self.way = found;
        Ok(None)
    }

    /// A way of at most `max_tokens` tokens to where the answer may end. The state is the same afterwards.
    fn find_way(&mut self, max_tokens: usize) -> Result<Option<Vec<TokenId>>> {
        let mut way = Vec::new();
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
            let Some(token) = self.step()? else { break false };
            way.push(token);
        };
        self.matcher.rollback(way.len()).map_err(failed)?;
        Ok(found.then_some(way))
    }

    /// Takes the best next token of a way to the end: one after which the answer may end, else the first that may come.
    fn step(&mut self) -> Result<Option<TokenId>> {
        let mut first = None;
        for index in 0..self.bytes.len() {
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
    Error::Constraint(format!("the answer's form can't be followed: {error}"))
}
