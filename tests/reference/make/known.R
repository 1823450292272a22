# Known covariances of levels, by dense algebra: writes known.json beside this folder.
#     Rscript tests/reference/make/known.R
# No package at hand fits these models. The (restricted) likelihood is that of y ~ N(X b, sum s2 Z K Z' + s2 I), the
# Laplace approximation the textbook's, with the mode by Newton steps; both are minimised by nlminb, then Newton steps.
# The pedigree's matrix is made by the tabular method (Emik & Terrill 1949).
suppressPackageStartupMessages({library(jsonlite); library(numDeriv)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
old <- fromJSON(file.path(here, "..", "known.json"), simplifyVector = FALSE)
read <- function(name) read.csv(gzfile(file.path(here, "..", "data", paste0(name, ".csv.gz"))), na.strings = "")
tabular <- function(p) {
  s <- match(p$sire, p$id); d <- match(p$dam, p$id); n <- nrow(p); A <- diag(n)
  for (i in seq_len(n)) {
    row <- numeric(i - 1)
    for (k in c(s[i], d[i])) if (!is.na(k)) row <- row + A[k, seq_len(i - 1)] / 2
    A[i, seq_len(i - 1)] <- A[seq_len(i - 1), i] <- row
    if (!is.na(s[i]) && !is.na(d[i])) A[i, i] <- 1 + A[s[i], d[i]] / 2
  }
  dimnames(A) <- list(p$id, p$id); A
}
matrices <- list(K_ped300 = tabular(read("ped300")))
K <- read("K_phylo60"); matrices$K_phylo60 <- `dimnames<-`(as.matrix(K[-1]), list(K$level, K$level))
polish <- function(f, x) {
  for (i in 1:4) { x <- nlminb(x, f, control = list(rel.tol = 1e-15, iter.max = 500, eval.max = 1000))$par }
  for (i in 1:2) x <- x - solve(hessian(f, x), grad(f, x))
  x
}
for (name in names(old)) {
  m <- old[[name]]; d <- read(m$data)
  if (!is.null(d$year)) d$year <- factor(d$year)
  bars <- regmatches(m$formula, gregexpr("\\(1 \\| ([a-z0-9]+)\\)", m$formula))[[1]]
  groups <- sub("\\(1 \\| ([a-z0-9]+)\\)", "\\1", bars)
  fixed <- as.formula(gsub(" \\+ \\(1 \\| [a-z0-9]+\\)", "", m$formula))
  X <- model.matrix(fixed, d); y <- d[[all.vars(fixed)[1]]]; n <- length(y); p <- ncol(X)
  K <- lapply(groups, function(g) if (is.null(m$matrix[[g]])) diag(length(unique(d[[g]]))) else matrices[[m$matrix[[g]]$matrix]])
  labels <- lapply(seq_along(groups), function(i) if (is.null(rownames(K[[i]]))) sort(unique(d[[groups[i]]])) else rownames(K[[i]]))
  Z <- lapply(seq_along(groups), function(i) outer(d[[groups[i]]], labels[[i]], "==") + 0)
  ZKZ <- lapply(seq_along(groups), function(i) Z[[i]] %*% K[[i]] %*% t(Z[[i]]))
  if (m$family == "gaussian") {
    parts <- function(x) {
      V <- Reduce(`+`, Map(`*`, exp(2 * x[-1]), ZKZ)) + exp(2 * x[1]) * diag(n)
      R <- chol(V); WX <- backsolve(R, X, transpose = TRUE); Wy <- backsolve(R, y, transpose = TRUE)
      XVX <- crossprod(WX); b <- solve(XVX, crossprod(WX, Wy))
      list(R = R, XVX = XVX, b = drop(b), rss = sum((Wy - WX %*% b)^2))
    }
    f <- function(x) {
      q <- parts(x); r <- if (m$reml) p else 0
      2 * sum(log(diag(q$R))) + q$rss + (n - r) * log(2 * pi) + if (m$reml) as.numeric(determinant(q$XVX)$modulus) else 0
    }
    x <- polish(f, log(c(1, rep(0.7, length(groups))))); q <- parts(x)
    m$log_likelihood <- -f(x) / 2; m$coefficients <- unname(q$b); m$std_errors <- unname(sqrt(diag(solve(q$XVX))))
    m$sigma <- exp(x[1]); m$sd <- setNames(as.list(exp(x[-1])), groups)
    r <- backsolve(q$R, backsolve(q$R, y - X %*% q$b, transpose = TRUE))
    u <- lapply(seq_along(groups), function(i) drop(exp(2 * x[1 + i]) * K[[i]] %*% t(Z[[i]]) %*% r))
    # Satterthwaite's degrees of freedom from numerical derivatives.
    H <- hessian(f, x); A <- 2 * solve(H)
    J <- jacobian(function(x) diag(solve(parts(x)$XVX)), x)
    m$satterthwaite <- 2 * m$std_errors^4 / rowSums((J %*% A) * J)
    ratio <- function(x) { v <- exp(2 * x); v[2] / sum(v) }
    g <- grad(ratio, x); m$variance_ratio <- c(ratio(x), sqrt(sum(g * (A %*% g))))
  } else {
    F <- t(chol(K[[1]])); ZF <- Z[[1]] %*% F
    mode <- function(x) {
      b <- x[-1]; W <- exp(x[1]) * ZF; u <- numeric(ncol(W))
      for (i in 1:100) {
        eta <- drop(X %*% b + W %*% u)
        mu <- if (m$family == "poisson") exp(eta) else plogis(eta)
        w <- if (m$family == "poisson") mu else mu * (1 - mu)
        H <- diag(ncol(W)) + crossprod(W, w * W); step <- solve(H, crossprod(W, y - mu) - u); u <- u + drop(step)
        if (max(abs(step)) < 1e-13) break
      }
      eta <- drop(X %*% b + W %*% u)
      l <- if (m$family == "poisson") sum(dpois(y, exp(eta), log = TRUE)) else sum(dbinom(y, 1, plogis(eta), log = TRUE))
      list(u = u, value = -2 * l + sum(u^2) + 2 * sum(log(diag(chol(H)))))
    }
    f <- function(x) mode(x)$value
    start <- glm(fixed, m$family, d)
    x <- polish(f, c(log(0.7), unname(coef(start))))
    m$log_likelihood <- -f(x) / 2; m$coefficients <- x[-1]; m$sd <- setNames(list(exp(x[1])), groups)
    m$std_errors <- sqrt(diag(2 * solve(hessian(f, x))))[-1]
    u <- list(drop(exp(x[1]) * F %*% mode(x)$u))
  }
  m$modes <- setNames(lapply(seq_along(groups), function(i) {
    list(labels = head(labels[[i]], 12), values = head(unname(u[[i]]), 12))
  }), groups)
  old[[name]] <- m
}
write(toJSON(old, digits = 15, auto_unbox = TRUE, pretty = TRUE), file.path(Sys.getenv("REFERENCE_OUT", file.path(here, "..")), "known.json"))
