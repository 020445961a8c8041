//! A disk of a test's own, small enough to be filled: a tmpfs in a mount namespace that ends with the test.
//!
//! Only programs started through it see the disk; to everyone else its folder is empty. Nothing has to be unmounted,
//! however the test ends.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{Ended, Workspace};

/// What a test can do where neither way is allowed.
const REMEDY: &str = "a full disk cannot be tested without a small file system: run the tests as root (a container needs \
    the capability SYS_ADMIN), or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)";

/// A small disk.
pub struct Disk {
    folder: PathBuf,
    keeper: Child,
    /// How to enter the namespace.
    entry: &'static [&'static str],
    _alive: ChildStdin,
}

/// Ways to get a mount namespace, with the ways into it: as root, and for everyone where the kernel lets them.
const WAYS: [(&[&str], &[&str]); 2] = [
    (&["--mount"], &["--mount"]),
    (&["--mount", "--user", "--map-root-user"], &["--mount", "--user", "--preserve-credentials"]),
];

// === impl Disk ===

impl Disk {
    /// Mounts a disk of `size` (such as `64k`) at a folder of a workspace.
    ///
    /// # Panics
    /// When the system refuses; with its words and what to do.
    #[must_use]
    pub fn mount(workspace: &Workspace, folder: &str, size: &str) -> Self {
        let folder = workspace.path(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        // It keeps the namespace until its standard input ends, which it does with this process at the latest.
        let script = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec cat"#;
        let mut refusals = String::new();
        for (ways, entry) in WAYS {
            let mut command = Command::new("unshare");
            command.args(ways).args(["sh", "-c", script, "sh", size]).arg(&folder);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut keeper = command.spawn().expect("unshare: install util-linux");
            let mut said = String::new();
            let stdout = keeper.stdout.take().expect("a pipe");
            BufReader::new(stdout).read_line(&mut said).expect("reads");
            if said.trim() == "mounted" {
                let alive = keeper.stdin.take().expect("a pipe");
                return Self { folder, keeper, entry, _alive: alive };
            }
            let refusal = Ended::from(keeper.wait_with_output().expect("ended")).stderr;
            refusals.push_str(&format!("\n  unshare {}: {}", ways.join(" "), refusal.trim()));
        }
        panic!("{REMEDY}{refusals}");
    }

    /// Lets a command run where it sees the disk.
    #[must_use]
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg("--target").arg(self.keeper.id().to_string()).args(self.entry);
        // Entering leaves the working directory behind.
        inside.args(["sh", "-c", r#"cd "$1" && shift && exec "$@""#, "sh"]);
        inside.arg(command.get_current_dir().unwrap_or(&self.folder)).arg(command.get_program());
        inside.args(command.get_args()).stdin(Stdio::null());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(variable, value),
                None => inside.env_remove(variable),
            };
        }
        inside
    }

    /// Lets the disk have room for so many more KiB, and no more.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn leave(&self, kib: u64) {
        let mut df = Command::new("df");
        df.args(["--output=used", "--block-size=1K"]).arg(&self.folder);
        let said = self.run(&df);
        let used = said.expect(0).stdout.lines().last().and_then(|line| line.trim().parse::<u64>().ok());
        self.resize(&format!("{}k", used.expect("a number") + kib));
    }

    /// Changes the size; what is on the disk stays.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        // With its type and source: else `mount` adds the options it finds, some of which a user namespace refuses.
        mount.args(["-t", "tmpfs", "-o", &format!("remount,size={size}"), "tmpfs"]).arg(&self.folder);
        self.run(&mount).expect(0);
    }

    /// Returns the files on the disk, by their paths on it, in order.
    ///
    /// # Panics
    /// When they cannot be listed.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let mut find = Command::new("find");
        find.arg(&self.folder).args(["-type", "f", "-printf", r"%P\n"]);
        let found = self.run(&find);
        let mut files: Vec<_> = found.expect(0).stdout.lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    /// Returns the content of a file on the disk.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn read(&self, file: &str) -> String {
        let mut cat = Command::new("cat");
        cat.arg(self.folder.join(file));
        self.run(&cat).expect(0).stdout.clone()
    }

    fn run(&self, command: &Command) -> Ended {
        self.inside(command).output().expect("nsenter: install util-linux").into()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is a process of this test's; one that has ended already is as good.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
