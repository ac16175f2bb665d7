//! `host chat` on a terminal.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use herald_testing::{cpu_plugin, tiny_with};
use tempfile::TempDir;

use crate::home;

/// A copy of a tiny model with a chat template, which it lacks.
fn chat_model(folder: &Path) -> PathBuf {
    const TEMPLATE: &str = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}\
         {% if add_generation_prompt %}<assistant>{% endif %}";
    tiny_with(folder, &[("tokenizer.chat_template", TEMPLATE)])
}

/// Both sides of a pseudo-terminal of 60 columns: the user's and the program's.
fn pseudo_terminal() -> (File, File) {
    let mut size = libc::winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: `ours`, `theirs` and `size` live through the call; a name and settings may be null.
    let opened =
        unsafe { libc::openpty(&mut ours, &mut theirs, ptr::null_mut(), ptr::null_mut(), &raw mut size) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: openpty has just opened both descriptors, and nothing else owns them.
    unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) }
}

/// The program on a terminal.
struct Terminal {
    keys: File,
    screen: Arc<Mutex<String>>,
    child: Child,
    home: TempDir,
}

impl Terminal {
    fn chat(arguments: &[&str]) -> Self {
        let home = home();
        let (ours, theirs) = pseudo_terminal();
        let stdio = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        for variable in
            ["HERALD_PLUGIN_PATH", "HERALD_CONFIG", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"]
        {
            command.env_remove(variable);
        }
        command.env("HERALD_BACKEND", "cpu").env("HOME", home.path()).env("TERM", "xterm");
        command.arg("--allow-insecure-plugins").arg("--plugin").arg(cpu_plugin());
        command.args(["chat", "-n", "6", "--ignore-eos", "--stats"]).args(arguments);
        command.arg("--model").arg(chat_model(home.path()));
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("the program");
        let keys = ours;
        let screen = Arc::<Mutex<String>>::default();
        let (mut output, shown) = (keys.try_clone().expect("a descriptor"), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end is an error on Linux.
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                shown.lock().expect("the screen").push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        let terminal = Self { keys, screen, child, home };
        terminal.shows("/help says more", 1);
        terminal.shows("> ", 1);
        terminal
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until the text has been shown so many times.
    #[track_caller]
    fn shows(&self, text: &str, times: usize) {
        let begin = Instant::now();
        loop {
            let shown = self.screen.lock().expect("the screen").clone();
            if shown.matches(text).count() >= times {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(120),
                "{text:?} is not shown {times} times: {shown:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Leaves, and returns all that was shown.
    fn leaves(mut self) -> String {
        self.types("/quit\r");
        assert!(self.child.wait().expect("its end").success());
        self.screen.lock().expect("the screen").clone()
    }
}

/// A terminal that doesn't mark pasted text sends lines as if they were typed quickly: none is lost.
#[test]
fn pasted_lines_all_arrive() {
    let mut terminal = Terminal::chat(&["--session", "pasted"]);
    terminal.types("the first line\rthe second line\rthe third line\r");
    terminal.shows("generated at", 3);
    let session = terminal.home.path().join(".local/share/herald/sessions/pasted.session");
    terminal.shows("> ", 4);
    let saved = String::from_utf8_lossy(&fs::read(session).expect("the session")).into_owned();
    for line in ["the first line", "the second line", "the third line"] {
        assert!(saved.contains(line), "{line:?} is a message");
    }
    terminal.leaves();
}

/// Text that the terminal marks as pasted is one message.
#[test]
fn marked_pasted_lines_are_one_message() {
    let mut terminal = Terminal::chat(&[]);
    terminal.types("\x1b[200~one\rtwo\rthree\x1b[201~\r");
    terminal.shows("generated at", 1);
    let screen = terminal.leaves();
    assert_eq!(screen.matches("generated at").count(), 1, "{screen:?}");
}

#[test]
fn every_command_answers() {
    let mut terminal = Terminal::chat(&[]);
    for (typed, answer) in [
        ("/undo", "no message to take back"),
        ("/help me", "/undo           take back"),
        ("/system Be brief.", "the system message is set"),
        ("/reset", "started over; the system message stays"),
        ("/system", "no system message; started over"),
        ("/reset now", "takes nothing after it"),
        ("/resets", "there is no command /resets"),
        ("hello", "generated at"),
        ("/undo", "took back the last message"),
        ("/reset", "(started over)"),
    ] {
        terminal.types(&format!("{typed}\r"));
        terminal.shows(answer, 1);
    }
    let screen = terminal.leaves();
    assert!(!screen.contains("no command /help"), "{screen:?}");
}
